// A guest that was stopped, or that does not want to, against a stand-in for the channel: it never says that anything ended.
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { breakable } from "../../src/core/break-off.js";
import { attachJob } from "../../src/core/jobs.js";
import { spawnInVm } from "../../src/core/spawn.js";
import type { AnsweringVm } from "../../src/core/exec.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = new Promise<never>(() => {});

function silentGuest(): AnsweringVm & { told: string[] } {
  const told: string[] = [];
  const outputs = () => {
    const both = { stdout: new PassThrough(), stderr: new PassThrough() };
    for (const each of [both.stdout, both.stderr]) each.on("error", () => {});
    return both;
  };
  const channel = {
    exec: () => ({ ...outputs(), stdin: undefined, started: never, result: never, cancel: () => told.push("cancel") }),
    listJobs: () => Promise.resolve([{ name: "job" }]),
    attachJob: () => ({ ...outputs(), started: never, result: never, detach: () => told.push("detach") }),
  };
  return { vmId: "vm-k3v9x2mq", channel, told } as unknown as AnsweringVm & { told: string[] };
}

test("spawn: after its time-out a command of a guest that does not answer counts as killed", async () => {
  const vm = silentGuest();
  const { exit, started, stdout } = spawnInVm(vm, { command: "x", timeoutSeconds: 1 });
  const read = text(stdout).catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(4000);
  expect(await exit).toEqual({ exitCode: 137, signal: "SIGKILL", timedOut: true, durationMs: 0, stdoutBytes: 0, stderrBytes: 0 });
  await expect(started).rejects.toMatchObject({ code: "GUEST_LOST" });
  expect(await read).toMatchObject({ code: "GUEST_LOST" });
  expect(vm.told).toEqual(["cancel"]);
});

test("spawn: the caller's signal ends the wait", async () => {
  const stop = new AbortController();
  const { exit, started, stdout } = spawnInVm(silentGuest(), { command: "x" }, stop.signal);
  const read = text(stdout).catch((error: unknown) => error);
  stop.abort();
  await vi.advanceTimersByTimeAsync(3000);
  await expect(exit).rejects.toMatchObject({ code: "CANCELLED" });
  await expect(started).rejects.toMatchObject({ code: "GUEST_LOST" });
  expect(await read).toMatchObject({ code: "GUEST_LOST" });
});

test.each(["signal", "detach"])("attach: %s ends the wait", async (by) => {
  const vm = silentGuest();
  const stop = new AbortController();
  const { exit, detach } = await attachJob(vm, "job", stop.signal);
  if (by === "detach") detach();
  else stop.abort();
  await vi.advanceTimersByTimeAsync(3000);
  await expect(exit).rejects.toMatchObject({ code: "CANCELLED" });
  expect(vm.told).toEqual(["detach"]);
});

test("output that was not read yet stays readable when what has ended is broken off", async () => {
  const output = new PassThrough();
  output.end("to be read");
  const { result, breakOff } = breakable(Promise.resolve(1), [output], () => {});
  expect(await result).toBe(1);
  breakOff();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(output.destroyed).toBe(false);
  expect(output.read()).toEqual(Buffer.from("to be read"));
});
