// Commands on the host, on a host that has no QEMU. With bubblewrap, and with one that does not work.
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createVm, deleteVm, execVm, listVms, attachVm, reapExpired, runInVm, startVm, statusVm, stopVm, type Phase, type RunOptions, type RunRequest } from "../../src/core/index.js";

const before = { ...process.env };
const path = process.env["PATH"]!;
const root = mkdtempSync(join(tmpdir(), "pyro-host-compat-"));
const brokenBin = join(root, "bin");
let home: string;

beforeAll(() => {
  mkdirSync(brokenBin);
  writeFileSync(join(brokenBin, "bwrap"), "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n");
  chmodSync(join(brokenBin, "bwrap"), 0o755);
});
beforeEach(() => {
  home = mkdtempSync(join(root, "home-"));
  for (const name of ["XDG_CACHE_HOME", "XDG_STATE_HOME"]) delete process.env[name];
  Object.assign(process.env, { HOME: home, PATH: path, PYRO_QEMU: "/nonexistent/qemu", PYRO_TEST_SECRET: "user's own" });
});
afterEach(() => expect(temporaryFiles()).toEqual([]));
afterAll(() => {
  for (const name of ["HOME", "PATH", "PYRO_QEMU", "PYRO_TEST_SECRET"]) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  rmSync(root, { recursive: true, force: true });
});

const allowed = (command: RunRequest["command"], more: Partial<RunRequest> = {}, options: RunOptions = {}) => runInVm({ environment: "debian:12", command, allowHostCompat: true, ...more }, options);

test("without the caller's word nothing runs on the host", async () => {
  const witness = join(home, "witness");
  for (const allowHostCompat of [undefined, false]) {
    await expect(runInVm({ environment: "debian:12", command: ["touch", witness], ...(allowHostCompat !== undefined && { allowHostCompat }) })).rejects.toMatchObject({ code: "HOST_MISSING", message: "/nonexistent/qemu is not installed." });
  }
  const { vmId } = await createVm({ environment: "debian:12" });
  await expect(startVm(vmId)).rejects.toMatchObject({ code: "HOST_MISSING" });
  expect(await statusVm(vmId)).toMatchObject({ state: "failed", executionMode: "pending" });
  await expect(execVm(vmId, { command: ["touch", witness] })).rejects.toMatchObject({ code: "INVALID_STATE" });
  expect(existsSync(witness)).toBe(false);
});

test("what the caller got wrong is no reason to run it on the host", async () => {
  await expect(allowed("true", { environment: "debian:99" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  await expect(allowed("true", { memMib: 1 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(allowed("true", { allowHosts: ["example.org"] })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(allowed([])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

describe.each(["bubblewrap", "nothing"])("isolated by %s", (isolation) => {
  const sandboxed = isolation === "bubblewrap";
  beforeEach(() => {
    if (!sandboxed) process.env["PATH"] = `${brokenBin}:${path}`;
  });

  test("with a network it has the host's, which the warning says", async () => {
    const links = "grep -c : /proc/net/dev";
    const result = await allowed(["sh", "-c", links], { network: true });
    expect(result.stdout).toBe(execFileSync("sh", ["-c", links], { encoding: "utf8" }));
    expect(result.warning).toContain(sandboxed ? "it shares the host's kernel, its network and its memory" : "NOTHING isolates it");
  });

  test("the result says where it ran, and a warning what that means and why", async () => {
    const phases: Phase[] = [];
    const result = await allowed(["sh", "-c", "echo out; echo err >&2; exit 7"], {}, { onPhase: (phase) => phases.push(phase) });
    expect(result).toMatchObject({ executionMode: "host_compat", exitCode: 7, stdout: "out\n", stderr: "err\n", stdoutBytes: 4, stderrBytes: 4, stdoutTruncated: false, timedOut: false, environment: "debian:12" });
    expect(result).not.toHaveProperty("accelerator");
    expect(result.warning).toContain("The command runs ON THE HOST and not in a VM: no VM can be had: /nonexistent/qemu is not installed.");
    expect(result.warning).toContain(sandboxed ? "it shares the host's kernel" : "NOTHING isolates it: it can read, change and delete your files, use the network, and see and end your processes.");
    if (!sandboxed) expect(result.warning).toContain("does not work here: bwrap: No permissions to create new namespace");
    expect(phases).toEqual([{ phase: "start", executionMode: "host_compat", warning: result.warning }, { phase: "exec", bootMs: expect.any(Number) as number }]);
  });

  test("a bare environment, a fresh home that is the current directory, and nothing of the user's", async () => {
    const { stdout } = await allowed(["sh", "-c", "env | cut -d= -f1 | sort | tr '\\n' ' '; echo; pwd; echo $HOME; ls -A | wc -l; echo $LANG $PATH; touch $HOME/x ${TMPDIR:-/tmp}/y && echo written"], { env: { MINE: "1" } });
    const [names, cwd, homeDirectory, ...rest] = stdout.split("\n");
    expect(names).toBe(`HOME LANG LOGNAME MINE PATH PWD SHELL ${sandboxed ? "" : "TMPDIR "}USER `);
    expect(homeDirectory).toBe(cwd);
    if (sandboxed) expect(cwd).toBe("/home/user");
    else expect(cwd).toMatch(/\/\.cache\/pyro-mcp\/tmp\/[0-9a-f]{16}\/home$/);
    expect(rest).toEqual(["0", "C.UTF-8 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "written", ""]);
  });

  test.each([
    [["true"], { exitCode: 0 }],
    [["sh", "-c", "exit 255"], { exitCode: 255 }],
    [["sh", "-c", "exit 124"], { exitCode: 124, timedOut: false }],
    [["sh", "-c", "exit 137"], { exitCode: 137 }],
    [["sh", "-c", "kill -9 $$"], { exitCode: 137, signal: "SIGKILL" }],
    [["sh", "-c", "kill -TERM $$"], { exitCode: 143, signal: "SIGTERM" }],
    [["no-such-program"], { exitCode: 127, stderr: "pyro: no-such-program: command not found\n" }],
    [["/etc/passwd"], { exitCode: 126, stderr: "pyro: /etc/passwd: Permission denied\n" }],
    ["echo $0; shopt -q login_shell && echo login", { exitCode: 0, stdout: "/bin/bash\nlogin\n" }],
    [["printf", "%s|", "a b", "", "c'd\"", "*"], { stdout: "a b||c'd\"|*|" }],
  ] as [RunRequest["command"], object][])("%j", async (command, expected) => {
    const result = await allowed(command);
    expect(result).toMatchObject(expected);
    if (!("signal" in expected)) expect(result).not.toHaveProperty("signal");
  });

  test("directories and variables as in a guest; another user and what can't be are refused", async () => {
    expect(await allowed("pwd; echo $A", { cwd: "/usr/lib", env: { A: "a=b c" } })).toMatchObject({ stdout: "/usr/lib\na=b c\n" });
    await expect(allowed("true", { cwd: "/nonexistent" })).rejects.toMatchObject({ code: "INVALID_STATE", message: "Guest exec is unavailable: chdir failed: /nonexistent: No such file or directory", hint: "The command was not run. Give a --workdir (cwd) that is there." });
    await expect(allowed("true", { user: "nobody" })).rejects.toMatchObject({ code: "UNSUPPORTED", message: "A command on the host runs as you; it can't become another user." });
    await expect(allowed(["echo", Buffer.from([0xff])])).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  test("standard input reaches it, can be opened by name, and ends; without one it is empty", async () => {
    expect(await allowed(["cat", "/dev/stdin"], {}, { stdin: Readable.from([Buffer.from("a"), Buffer.from("b")]) })).toMatchObject({ stdout: "ab", exitCode: 0 });
    expect(await allowed(["head", "-c", "3"], {}, { stdin: Readable.from([Buffer.alloc(5_000_000, "x")]) })).toMatchObject({ stdout: "xxx", exitCode: 0 });
    expect(await allowed("cat; echo err >/dev/stderr")).toMatchObject({ stdout: "", stderr: "err\n", exitCode: 0 });
  });

  test("output streams, is counted whole and kept within the limit", async () => {
    const stdout = new PassThrough();
    let streamed = 0;
    stdout.on("data", (chunk: Buffer) => (streamed += chunk.length));
    const result = await allowed(["sh", "-c", "yes | head -c 3000000"], {}, { stdout, captureBytes: 1024 });
    expect(result).toMatchObject({ stdoutBytes: 3_000_000, stdoutTruncated: true });
    expect(streamed).toBe(3_000_000);
  });

  const daemons = (mark: string) => `setsid sh -c 'trap "" TERM HUP; sleep ${mark}' & (setsid sleep ${mark} &) & echo begun`;

  test("all it started ends with it", async () => {
    const mark = newMark();
    expect(await allowed(["sh", "-c", `${daemons(mark)}; sleep 0.2`])).toMatchObject({ exitCode: 0, stdout: "begun\n" });
    expect(processesWith(mark)).toEqual([]);
  });

  test("a time-out kills all of it", async () => {
    const mark = newMark();
    expect(await allowed(["sh", "-c", `${daemons(mark)}; trap '' TERM; sleep ${mark}`], { timeoutSeconds: 2 })).toMatchObject({ timedOut: true, exitCode: 137, signal: "SIGKILL", stdout: "begun\n" });
    expect(processesWith(mark)).toEqual([]);
  });

  test("so do the end of its time to live and the caller", async () => {
    const mark = newMark();
    await expect(allowed(["sleep", mark], { ttlSeconds: 1, timeoutSeconds: 60 })).rejects.toMatchObject({ code: "TIMEOUT", message: "The time to live ended before the command did." });
    const controller = new AbortController();
    await expect(allowed(["sh", "-c", `${daemons(mark)}; sleep ${mark}`], {}, { signal: controller.signal, onStarted: () => void setTimeout(() => controller.abort(), 300) })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(processesWith(mark)).toEqual([]);
  });

  test("a signal goes to the command", async () => {
    const stdout = new PassThrough();
    const send = new Promise<(signal: number) => void>((resolve) => void stdout.once("data", () => resolve((signal) => sender(signal))));
    let sender: (signal: number) => void = () => {};
    const result = allowed(["sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"], {}, { stdout, onStarted: (sendSignal) => (sender = sendSignal) });
    (await send)(2);
    expect(await result).toMatchObject({ exitCode: 9, stdout: "ready\ncaught\n" });
  });

  test("a VM with a record runs its one command, and is gone", async () => {
    const { vmId, executionMode } = await createVm({ environment: "debian:12", allowHostCompat: true });
    expect(executionMode).toBe("pending");
    const started = await startVm(vmId);
    expect(started).toMatchObject({ state: "started", executionMode: "host_compat", warning: expect.stringContaining("ON THE HOST") as string });
    expect(started).not.toHaveProperty("accelerator");
    expect(await statusVm(vmId)).toEqual(started);
    expect(await reapExpired()).toEqual({ reaped: [] });
    await expect(startVm(vmId)).rejects.toMatchObject({ code: "INVALID_STATE" });
    await expect(attachVm(vmId)).rejects.toMatchObject({ code: "UNSUPPORTED" });
    expect(await execVm(vmId, { command: "echo done; exit 3" })).toMatchObject({ vmId, executionMode: "host_compat", stdout: "done\n", exitCode: 3, warning: expect.stringContaining("ON THE HOST") as string });
    await expect(statusVm(vmId)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(vmFiles()).toEqual([]);
  });

  test("it is found while its command runs, which nobody else can run again, and which deleting it ends", async () => {
    const mark = newMark();
    const { vmId } = await createVm({ environment: "debian:12", allowHostCompat: true });
    await startVm(vmId);
    const stdout = new PassThrough();
    const ready = new Promise((resolve) => void stdout.once("data", resolve));
    const exec = execVm(vmId, { command: ["sh", "-c", `echo ready; sleep ${mark}`], stdout });
    exec.catch(() => {});
    await ready;
    expect(await statusVm(vmId)).toMatchObject({ state: "started", executionMode: "host_compat" });
    await expect(execVm(vmId, { command: "true" })).rejects.toMatchObject({ code: "INVALID_STATE" });
    expect(await deleteVm(vmId)).toEqual({ vmId, deleted: true });
    await expect(exec).rejects.toMatchObject({ code: "VMM_EXITED" });
    expect(processesWith(mark)).toEqual([]);
    expect(vmFiles()).toEqual([]);
  });
});

test("one that was stopped can be started again; one that never ran is deleted or reaped as any other", async () => {
  const ids = await Promise.all([1, 2].map(async () => (await createVm({ environment: "debian:12", allowHostCompat: true, ttlSeconds: 60 })).vmId));
  for (const vmId of ids) await startVm(vmId);
  expect(await stopVm(ids[0]!)).toMatchObject({ state: "stopped" });
  await expect(execVm(ids[0]!, { command: "true" })).rejects.toMatchObject({ code: "INVALID_STATE" });
  await startVm(ids[0]!);
  expect(await execVm(ids[0]!, { command: "echo again" })).toMatchObject({ stdout: "again\n" });
  await deleteVm(ids[1]!);
  const { vmId } = await createVm({ environment: "debian:12", allowHostCompat: true, ttlSeconds: 2 });
  await startVm(vmId);
  await new Promise((resolve) => setTimeout(resolve, 2100));
  expect(await reapExpired()).toEqual({ reaped: [vmId] });
  expect(await listVms()).toEqual([]);
  expect(vmFiles()).toEqual([]);
});

test("bubblewrap shows no file of the user, no process and no network, and can't be got around by a variable", async () => {
  writeFileSync(join(home, "secret"), "secret");
  const script = `ls -A /home /root 2>/dev/null; cat ${home}/secret 2>&1; cat /etc/shadow 2>&1; ls -d /proc/[0-9]* | wc -l; ls /sys/class/net 2>/dev/null; tail -n +3 /proc/net/dev | cut -d: -f1; touch /usr/x /etc/x /x 2>/dev/null && echo writable; echo ${"$"}LD_PRELOAD`;
  const { stdout } = await allowed(["sh", "-c", script], { env: { LD_PRELOAD: "/nonexistent.so" } });
  const lines = stdout.split("\n").filter((each) => !each.includes("LD_PRELOAD cannot be preloaded"));
  expect(lines).toEqual(["/home:", "user", `cat: ${home}/secret: No such file or directory`, "cat: /etc/shadow: No such file or directory", expect.stringMatching(/^[4-9]$/) as string, "    lo", "/nonexistent.so", ""]);
});

function temporaryFiles(): string[] {
  return existsSync(join(home, ".cache/pyro-mcp/tmp")) ? readdirSync(join(home, ".cache/pyro-mcp/tmp")) : [];
}

function vmFiles(): string[] {
  return ["vms", "vm-locks"].flatMap((name) => readdirSync(join(home, ".local/state/pyro-mcp", name)));
}

function newMark(): string {
  return `1000.${Math.floor(Math.random() * 1e9)}`;
}

function processesWith(text: string): string[] {
  return execFileSync("ps", ["-eo", "stat,args"], { encoding: "utf8" }).split("\n").filter((line) => line.includes(text) && !line.startsWith("Z"));
}

