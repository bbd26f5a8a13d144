// TypeScript to dist/, the guest program and the keeper to build/<machine>/.
import { chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "./setup.mjs";

rmSync(join(root, "dist"), { recursive: true, force: true });
run("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"]);
chmodSync(join(root, "dist/main.js"), 0o755);
for (const directory of ["keeper", "guest"]) run("make", ["-s", "-C", directory]);
