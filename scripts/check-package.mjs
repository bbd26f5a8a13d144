// Packs the package as npm would, and checks what users of the tarball get: files, exports and types.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, run } from "./setup.mjs";

const directory = mkdtempSync(join(tmpdir(), "pyro-pack-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", directory], { stdio: ["ignore", "ignore", "inherit"] });
const tarball = join(directory, readdirSync(directory)[0]);
const { stdout } = spawnSync("tar", ["-tzf", tarball], { encoding: "utf8" });
for (const wanted of ["package/dist/main.js", "package/dist/index.js", "package/dist/index.d.ts", "package/build/x86_64/pyro-guest", "package/build/x86_64/pyro-keeper", "package/LICENSE"]) {
  if (!stdout.split("\n").includes(wanted)) {
    console.error(`${wanted} is missing from the tarball`);
    process.exit(1);
  }
}
run("node_modules/.bin/publint", [tarball, "--strict"], { cwd: root });
run("node_modules/.bin/attw", [tarball, "--profile", "esm-only"], { cwd: root });
