import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { bootDeadline, type BootLimits } from "../../src/vmm/boot-deadline.js";
import type { RunningVm, VmExit, VmProgress } from "../../src/vmm/vmm.js";

const limits: BootLimits = { cpuMs: 1000, stallMs: 60, stallCpuMs: 10, totalMs: 60_000, lookMs: 5 };
const never = (): Promise<never> => new Promise(() => {});

function vm(progress: () => VmProgress, exited: Promise<VmExit> = never()): RunningVm {
  return { pid: 1, accelerator: "tcg", ports: [], console: () => "Kernel panic", progress: async () => progress(), exited, end: async () => {} };
}
/** Works, forever. */
const busy = () => {
  let cpuMs = 0;
  return vm(() => ({ cpuMs: (cpuMs += 10) % 900, consoleBytes: cpuMs }));
};

it("gives what the hello gives", async () => {
  expect(await bootDeadline(busy(), async () => 42, undefined, limits)).toBe(42);
});

it("waits for as long as the guest gets on, however slowly", async () => {
  expect(await bootDeadline(busy(), () => sleep(300, "late"), undefined, limits)).toBe("late");
});

it("takes a host that stood still for none of the guest's idleness", async () => {
  let looks = 0;
  const standsStill = vm(() => {
    if (++looks === 2) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    return { cpuMs: 500, consoleBytes: 9 };
  });
  expect(await bootDeadline(standsStill, () => sleep(650, "late"), undefined, { ...limits, stallMs: 400, lookMs: 20 })).toBe("late");
});

it("waits for why a VM ended where its port was closed", async () => {
  const exited = sleep(700).then((): VmExit => ({ reason: "guest", code: 0, signal: null, stderr: "" }));
  const lost = () => Promise.reject(new PyroError("GUEST_LOST", "the port was closed"));
  await expect(bootDeadline(vm(() => ({ cpuMs: 0, consoleBytes: 0 }), exited), lost, undefined, { ...limits, stallMs: 60_000 })).rejects.toThrow(/the guest powered off or crashed/);
});

it("gives up on a guest that only burns processor time", async () => {
  let cpuMs = 0;
  const spinning = vm(() => ({ cpuMs: (cpuMs += 100), consoleBytes: 0 }));
  await expect(bootDeadline(spinning, never, undefined, limits)).rejects.toMatchObject({ code: "BOOT_FAILED", message: "The guest did not come up under tcg: it used 1 s of processor time without a hello.\nThe end of its console:\nKernel panic" });
});

it("gives up on a guest that does nothing", async () => {
  await expect(bootDeadline(vm(() => ({ cpuMs: 500, consoleBytes: 9 })), never, undefined, limits)).rejects.toThrow(/it did nothing for/);
  await expect(bootDeadline(vm(() => ({ cpuMs: undefined, consoleBytes: 0 })), never, undefined, limits)).rejects.toThrow(/it did nothing for/);
});

it("gives up at the total limit on a guest that only chatters", async () => {
  await expect(bootDeadline(busy(), never, undefined, { ...limits, totalMs: 50 })).rejects.toThrow(/did not say hello within/);
});

it.each([
  ["ttl", 124, "", /The VM's time to live ended before its guest was ready/],
  ["guest", 0, "", /the guest powered off or crashed/],
  ["failed", 1, "no such device", /the monitor ended with status 1: no such device/],
] as const)("says why the VM ended (%s), also when the hello fails first", async (reason, code, stderr, message) => {
  const exited = sleep(20).then((): VmExit => ({ reason, code, signal: null, stderr }));
  const failing = async () => {
    throw new Error("the port was closed");
  };
  await expect(bootDeadline(vm(() => ({ cpuMs: 0, consoleBytes: 0 }), exited), failing, undefined, limits)).rejects.toThrow(message);
});

it("passes on the hello's own failure when the VM lives", async () => {
  await expect(bootDeadline(busy(), () => Promise.reject(new Error("wrong version")), undefined, limits)).rejects.toThrow("wrong version");
});

it("stops when it is told to, and tells the hello", async () => {
  const controller = new AbortController();
  let told = false;
  const waiting = bootDeadline(busy(), (abort) => new Promise((_, reject) => abort.addEventListener("abort", () => ((told = true), reject(new Error("aborted"))))), controller.signal, limits);
  setTimeout(() => controller.abort(), 20);
  await expect(waiting).rejects.toMatchObject({ code: "CANCELLED" });
  expect(told).toBe(true);
});
