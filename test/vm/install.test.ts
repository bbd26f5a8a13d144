// The package as its users get it, and as users who are not root.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually } from "./pyro.js";

const root = new URL("../..", import.meta.url).pathname;
const directory = mkdtempSync(join(tmpdir(), "pyro-install-"));
chmodSync(directory, 0o755);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

// In a directory that every user can read.
const prefix = join(directory, "prefix");
beforeAll(() => {
  run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", directory], { cwd: root });
  const tarball = join(directory, readdirSync(directory).find((name) => name.endsWith(".tgz"))!);
  run("npm", ["install", "--global", "--prefix", prefix, "--no-audit", "--no-fund", "--loglevel=error", tarball]);
});

test("a packed tarball, installed elsewhere, runs a command in a VM", () => {
  const { stdout } = run(join(prefix, "bin/pyro"), ["run", "debian:12", "--", "git", "--version"]);
  expect(stdout).toMatch(/^git version 2\.39/);
  const imported = run(process.execPath, ["--input-type=module", "-e", `import { Pyro, PyroError } from ${JSON.stringify(join(prefix, "lib/node_modules/pyro-mcp/dist/index.js"))}; const result = await new Pyro().runInVm({ environment: "debian:12", command: "echo $0 $((6*7))" }); console.log(result.stdout.trim(), result.exitCode, typeof PyroError);`]);
  expect(imported.stdout).toBe("bash 42 0 function\n");
});

test("an ordinary user builds an environment and runs a command, without root", async () => {
  if (process.getuid!() !== 0) return; // then all the other tests have been run by an ordinary user already
  const user = `pyrotest${process.pid}`;
  run("useradd", ["--create-home", "--shell", "/bin/bash", user]);
  try {
    const asUser = (command: string) => run("su", ["-", user, "-c", command], { timeout: 900_000 });
    const { stdout } = asUser(`${prefix}/bin/pyro run debian:12-base --quiet -- sh -c 'id -u; cat /etc/debian_version'`);
    expect(stdout).toMatch(/^0\n12\.\d+\n$/);
    const again = asUser(`${prefix}/bin/pyro doctor --json`);
    expect(JSON.parse(again.stdout)).toMatchObject({ runtime: "PASS" });
    // What ends with pyro may need a moment more than pyro.
    const processes = () => spawnSync("pgrep", ["-au", user], { encoding: "utf8" }).stdout;
    await eventually(() => processes() === "");
    expect(processes()).toBe("");
  } finally {
    run("userdel", ["--remove", user]);
  }
  expect(existsSync(`/home/${user}`)).toBe(false);
});

function run(command: string, args: string[], options: { cwd?: string; timeout?: number } = {}): { stdout: string } {
  const result = spawnSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 300_000, ...options });
  if (result.status !== 0) throw new Error(`${command} ${args.join(" ")}: status ${result.status}\n${result.stdout}\n${result.stderr}`);
  return { stdout: result.stdout };
}
