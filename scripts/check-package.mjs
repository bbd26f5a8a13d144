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
const { stdout } = spawnSync("tar", ["-tvzf", tarball], { encoding: "utf8" });
const modes = new Map(stdout.trim().split("\n").map((line) => [line.split(" ").at(-1).replace(/^package\//, ""), line.slice(0, 10)]));
for (const wanted of ["dist/index.js", "dist/index.d.ts", "dist/main/LICENSES", "dist/gateway.cjs", "keys/debian-12.gpg", "LICENSE", "README.md", "SECURITY.md", "protocol/PROTOCOL.md", "docs/skills/pyro-vms/SKILL.md"]) check(modes.has(wanted), `${wanted} is missing from the tarball`);
for (const program of ["dist/main.cjs", "build/x86_64/pyro-guest", "build/x86_64/pyro-keeper"]) check(modes.get(program) === "-rwxr-xr-x", `${program} is missing from the tarball or can't be executed: ${modes.get(program)}`);
run("node_modules/.bin/publint", [tarball, "--strict"], { cwd: root });
run("node_modules/.bin/attw", [tarball, "--profile", "esm-only"], { cwd: root });

function check(holds, complaint) {
  if (holds) return;
  console.error(complaint);
  process.exit(1);
}
