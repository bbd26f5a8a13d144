// npm run fuzz -- [NAME] [--seconds N] [--seed N]: the decoders of test/fuzz for longer than the tests do it, with other bytes each time. What is found is kept in test/fuzz/corpus.
import { parseArgs } from "node:util";
import { run } from "./setup.mjs";

const { values, positionals } = parseArgs({ allowPositionals: true, options: { seconds: { type: "string", default: "60" }, seed: { type: "string" } } });
const env = { ...process.env, PYRO_FUZZ_SECONDS: values.seconds, PYRO_FUZZ_SEED: values.seed ?? String(Date.now() % 2 ** 31), ...(positionals[0] !== undefined && { PYRO_FUZZ: positionals[0] }) };
run("node_modules/.bin/vitest", ["run", "test/fuzz/fuzz.test.ts", "--project=unit", "--disable-console-intercept=true"], { env });
