// TypeScript to dist/, the guest program and the keeper to build/<machine>/.
import { chmodSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "./setup.mjs";

rmSync(join(root, "dist"), { recursive: true, force: true });
run("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"]);
chmodSync(join(root, "dist/main.js"), 0o755);
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
for (const directory of ["keeper", "guest"]) run("make", ["-s", "-C", directory, `VERSION=${version}`]);
