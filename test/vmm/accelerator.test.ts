import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { accessProblem, choose, inspectKvm } from "../../src/vmm/accelerator.js";
import type { Backend, VmExit } from "../../src/vmm/vmm.js";

const accessible = (await inspectKvm()).writable;

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "pyro-accelerator-test-"));
  vi.stubEnv("XDG_CACHE_HOME", directory);
  await writeFile(join(directory, "kernel"), "k");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

/** A monitor that counts its starts and ends. */
function backend(exited: Promise<VmExit> = new Promise(() => {}), build = "1") {
  const counts = { started: 0, ended: 0 };
  const port = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const fake: Backend = {
    name: "fake",
    version: async () => ({ version: "1", build }),
    start: async (_spec, accelerator) => {
      counts.started++;
      return { pid: 1, accelerator, ports: [port], console: () => "", progress: async () => ({ cpuMs: 0, consoleBytes: 0 }), exited, end: async () => void counts.ended++ };
    },
  };
  return { fake, counts };
}
const options = (setting: "auto" | "kvm" | "tcg", saysHello: () => Promise<void>) => ({ kernel: join(directory, "kernel"), initramfs: join(directory, "kernel"), setting, saysHello, guestKey: "guest" });
const dead = (): Promise<VmExit> => Promise.resolve({ reason: "failed", code: 134, signal: null, stderr: "no MSR\nmore" });

it.each([
  [{ exists: false, readable: false, writable: false }, /There is no \/dev\/kvm/, /modprobe/],
  [{ exists: true, readable: true, writable: false }, /may not be opened/, /usermod -aG kvm/],
])("says what is wrong with %j", (found, reason, hint) => {
  expect(accessProblem(found)!.reason).toMatch(reason);
  expect(accessProblem(found)!.hint).toMatch(hint);
});

it("sees no fault in a device that may be opened", () => {
  expect(accessProblem({ exists: true, readable: true, writable: true })).toBe(undefined);
});

it("looks at the device's permissions", async () => {
  expect(await inspectKvm(join(directory, "nothing"))).toEqual({ exists: false, readable: false, writable: false });
  expect(await inspectKvm(join(directory, "kernel"))).toEqual({ exists: true, readable: true, writable: true });
});

it("tries nothing when emulation is asked for", async () => {
  const { fake, counts } = backend();
  expect(await choose(fake, options("tcg", async () => {}))).toMatchObject({ accelerator: "tcg", kvm: { guestRan: undefined } });
  expect(counts.started).toBe(0);
});

it.runIf(accessible)("believes a guest that said hello, once for all (runs where /dev/kvm may be opened)", async () => {
  const { fake, counts } = backend();
  for (let n = 0; n < 3; n++) expect(await choose(fake, options("auto", async () => {}))).toMatchObject({ accelerator: "kvm", kvm: { guestRan: true } });
  expect(counts).toEqual({ started: 1, ended: 1 });
});

it.runIf(accessible)("falls back with the reason, and remembers that too (runs where /dev/kvm may be opened)", async () => {
  const { fake, counts } = backend(dead());
  const silent = () => new Promise<void>(() => {});
  for (let n = 0; n < 2; n++) expect(await choose(fake, options("auto", silent))).toMatchObject({ accelerator: "tcg", kvm: { guestRan: false, reason: "The guest did not come up under kvm: the monitor ended with status 134: no MSR" } });
  expect(counts).toEqual({ started: 1, ended: 1 });
  await expect(choose(fake, options("kvm", silent))).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringContaining("no MSR") as string });
});

it.runIf(accessible)("asks again for another QEMU (runs where /dev/kvm may be opened)", async () => {
  await choose(backend(dead()).fake, options("auto", () => new Promise(() => {})));
  const { fake, counts } = backend(undefined, "2");
  expect(await choose(fake, options("auto", async () => {}))).toMatchObject({ accelerator: "kvm" });
  expect(counts.started).toBe(1);
});

it.runIf(accessible)("tries again when asked to (runs where /dev/kvm may be opened)", async () => {
  await choose(backend(dead()).fake, options("auto", () => new Promise(() => {})));
  expect(await choose(backend().fake, { ...options("auto", async () => {}), again: true })).toMatchObject({ accelerator: "kvm" });
});

it.runIf(accessible)("remembers nothing of a probe that was broken off (runs where /dev/kvm may be opened)", async () => {
  const controller = new AbortController();
  const first = backend();
  const waiting = choose(first.fake, { ...options("auto", () => new Promise(() => {})), signal: controller.signal, onProbe: () => void setTimeout(() => controller.abort(), 20) });
  await expect(waiting).rejects.toMatchObject({ code: "CANCELLED" });
  expect(first.counts).toEqual({ started: 1, ended: 1 });
  expect(await choose(backend().fake, options("auto", async () => {}))).toMatchObject({ accelerator: "kvm" });
});
