// Prints every number the documents claim, each beside a floor measured in the same run. Needs a build (`npm run build`).
// Usage: npm run bench [-- --long | NAME…]. Without a word, what takes a few minutes; `--long` adds what takes half an hour; or the benches named.
import { spawnSync } from "node:child_process";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";

const short = ["fork", "fork-load", "throughput", "exec-and-copy", "network", "mcp", "cold-start", "image-writer", "image-pull"];
const long = ["scaling", "cpu-models"];
const words = process.argv.slice(2);
const wanted = words.length === 0 ? short : words.flatMap((word) => (word === "--long" ? [...short, ...long] : word));
console.log(`${cpus().length} processors, ${cpus()[0].model.trim()}, Node ${process.versions.node}`);
let failed = false;
for (const name of wanted) {
  console.log(`\n## ${name}`);
  const { status } = spawnSync(process.execPath, [fileURLToPath(new URL(`${name}.mjs`, import.meta.url))], { stdio: "inherit", env: { PYRO_CATALOG_FROM: "archive", ...process.env } });
  failed ||= status !== 0;
}
process.exit(failed ? 1 : 0);
