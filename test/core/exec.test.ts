// Against a stand-in for the channel: what a guest does is told here, and nothing is booted.
import { PassThrough, Readable, Writable } from "node:stream";
import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import type { ExecOutcome, GuestProcess } from "../../src/channel/index.js";
import { execInVm, timeoutOf, type CommandTerminal, type ExecResult, type TerminalSize } from "../../src/core/exec.js";
import type { StartedVm } from "../../src/core/start.js";

const request = { command: ["x"], timeoutSeconds: 1, captureBytes: 1024 };
const ended: ExecOutcome = { exitCode: 0, durationMs: 1, stdoutBytes: 0, stderrBytes: 0 };

test("a slow reader does not turn a command that ended in time into one that timed out", async () => {
  let passed = 0;
  const slow = new Writable({
    highWaterMark: 1,
    write: (chunk: Buffer, _encoding, done) => {
      passed += chunk.length;
      setTimeout(done, 700);
    },
  });
  const stdout = Readable.from([Buffer.alloc(1000), Buffer.alloc(1000), Buffer.alloc(1000)]);
  const result = await execInVm(standIn({ stdout, result: Promise.resolve(ended) }), "debian:12", { ...request, stdout: slow });
  expect(result).toMatchObject({ exitCode: 0, timedOut: false, stdoutBytes: 3000 });
  expect(passed).toBe(3000);
});

test("a guest that does not even answer a kill is given up", async () => {
  let cancels = 0;
  const result = await execInVm(standIn({ result: new Promise(() => {}), cancel: () => cancels++ }), "debian:12", request);
  expect(result).toMatchObject({ exitCode: 137, signal: "SIGKILL", timedOut: true });
  expect(cancels).toBe(1);
});

test("the caller's signal ends the wait, for the command as for its output", async () => {
  for (const result of [new Promise<ExecOutcome>(() => {}), Promise.resolve(ended)]) {
    const controller = new AbortController();
    const exec = execInVm(standIn({ result, stdout: new PassThrough() }), "debian:12", { ...request, timeoutSeconds: 60 }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await expect(exec).rejects.toMatchObject({ code: "CANCELLED" });
  }
});

test.each([
  [{ exitCode: 41, durationMs: 5, stdoutBytes: 0, stderrBytes: 0 }, { exitCode: 41 }],
  [{ exitCode: 143, signal: 15, durationMs: 5, stdoutBytes: 0, stderrBytes: 0 }, { exitCode: 143, signal: "SIGTERM" }],
  [{ failure: { errno: 2, stage: "exec", message: "x: not found" } }, { exitCode: 127, stderr: "pyro: x: not found\n" }],
  [{ failure: { errno: 13, stage: "exec", message: "x: permission denied" } }, { exitCode: 126, stderr: "pyro: x: permission denied\n" }],
  [{ failure: { errno: 8, stage: "exec", message: "x: no program" } }, { exitCode: 126, stderr: "pyro: x: no program\n" }],
] as [ExecOutcome, object][])("%j", async (outcome, expected) => {
  expect(await execInVm(standIn({ result: Promise.resolve(outcome) }), "debian:12", request)).toMatchObject(expected);
});

test("a standard input that can't be read is an error and not an empty one", async () => {
  const broken = new Readable({ read() { this.destroy(new Error("EISDIR: illegal operation on a directory, read")); } });
  const exec = execInVm(standIn({ result: new Promise(() => {}) }), "debian:12", { ...request, timeoutSeconds: 60, stdin: broken });
  await expect(exec).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: "Standard input can't be read: EISDIR: illegal operation on a directory, read" });
});

test("why a VM ended is the answer, not that its channel broke", async () => {
  const lost = () => Promise.reject(new PyroError("GUEST_LOST", "gone"));
  const exec = (reason: string) => execInVm(standIn({ result: lost(), exit: { reason, code: 1, signal: null, stderr: "why" } }), "debian:12", request);
  await expect(exec("ttl")).rejects.toMatchObject({ code: "TIMEOUT" });
  await expect(exec("guest")).rejects.toMatchObject({ code: "GUEST_LOST", hint: "The end of its console:\nlast words" });
  await expect(exec("killed")).rejects.toMatchObject({ code: "GUEST_LOST", message: "The VM was stopped, deleted or closed while the command ran, or ran its one command for another caller." });
  await expect(exec("failed")).rejects.toMatchObject({ code: "VMM_EXITED", message: "QEMU ended while the command ran (status 1): why" });
});

test("a terminal is opened before the command starts, told of to the guest, and closed whatever the end", async () => {
  const log: unknown[] = [];
  let resize: ((size: TerminalSize) => void) | undefined;
  const terminal: CommandTerminal = {
    open: (listener) => {
      resize = listener;
      listener({ rows: 1, columns: 1 }); // before there is a command: its size is what `open` resolves to
      log.push("open");
      return Promise.resolve({ rows: 24, columns: 80 });
    },
    close: (result: ExecResult | undefined) => {
      log.push(["close", result?.exitCode]);
      return Promise.resolve();
    },
  };
  const vm = standIn({
    result: new Promise((resolve) => setTimeout(() => {
      resize!({ rows: 30, columns: 100 });
      resolve(ended);
    }, 20)),
    onExec: (given) => log.push(["exec", given]),
    resize: (rows, columns) => log.push(["resize", rows, columns]),
  });
  await execInVm(vm, "debian:12", { ...request, terminal });
  expect(log).toEqual(["open", ["exec", { argv: ["x"], stdin: false, tty: { rows: 24, columns: 80 } }], ["resize", 30, 100], ["close", 0]]);

  log.length = 0;
  const lost = Promise.reject(new PyroError("GUEST_LOST", "gone"));
  await expect(execInVm(standIn({ result: lost, exit: { reason: "guest" } }), "debian:12", { ...request, terminal })).rejects.toMatchObject({ code: "GUEST_LOST" });
  expect(log).toEqual(["open", ["close", undefined]]);
});

test("a terminal has a day unless less was asked for", () => {
  const terminal = {} as CommandTerminal;
  expect(timeoutOf({})).toBe(30);
  expect(timeoutOf({ terminal })).toBe(86_400);
  expect(timeoutOf({ terminal, timeoutSeconds: 5 })).toBe(5);
  expect(() => timeoutOf({ terminal, timeoutSeconds: 86_401 })).toThrow("timeout_seconds is 86401");
});

test("limits are held to whoever asks: a time-out of 0 would kill at once, and so would one that no timer can count", async () => {
  const exec = (more: object) => execInVm(standIn({ result: Promise.resolve(ended) }), "debian:12", { ...request, ...more });
  await expect(exec({ timeoutSeconds: 0 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: "timeout_seconds is 0; it is a whole number from 1 to 86400." });
  await expect(exec({ timeoutSeconds: 2_592_000 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(exec({ captureBytes: 1 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

test.each([undefined, null, 5, {}, [5], [undefined]])("%j is no command", async (command) => {
  await expect(execInVm(standIn({ result: Promise.resolve(ended) }), "debian:12", { ...request, command: command as unknown as string })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: "The command is neither a string nor an array of strings." });
});

function standIn(given: { stdout?: Readable; result: Promise<ExecOutcome>; cancel?: () => void; exit?: object; onExec?: (request: unknown) => void; resize?: (rows: number, columns: number) => void }): StartedVm {
  given.result.catch(() => {});
  const guest: Partial<GuestProcess> = {
    stdin: new PassThrough(),
    stdout: given.stdout ?? Readable.from([]),
    stderr: Readable.from([]),
    result: given.result,
    signal: () => {},
    cancel: given.cancel ?? (() => {}),
    resize: given.resize ?? (() => {}),
  };
  return { vmId: "vm-test", accelerator: "tcg", bootMs: 1, channel: { exec: (request: unknown) => (given.onExec?.(request), guest) }, vm: { exited: given.exit === undefined ? new Promise(() => {}) : Promise.resolve(given.exit), console: () => "last words" } } as unknown as StartedVm;
}
