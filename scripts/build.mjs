// TypeScript to dist/, the command line in it bundled, the guest program and the keeper to build/<machine>/.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "./setup.mjs";

rmSync(join(root, "dist"), { recursive: true, force: true });
run("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"]);
await (await import("./bundle.mjs")).bundle();
for (const directory of ["keeper", "guest"]) run("make", ["-s", "-C", directory]);
