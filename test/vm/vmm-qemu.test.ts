// QEMU with real guests, below everything that knows what a command is.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { connectChannel } from "../../src/channel/index.js";
import { openEnvironment, scratchDisk, type OpenEnvironment } from "../../src/environments/index.js";
import { tryLock } from "../../src/base/lock.js";
import { bootDeadline, chooseAccelerator, inspectConfinement, startVm, type RunningVm, type VmSpec } from "../../src/vmm/index.js";
import { eventually, processesWith } from "./pyro.js";

let environment: OpenEnvironment;
let scratchBase: string;
let accelerator: "kvm" | "tcg";
let directory: string;
const running: RunningVm[] = [];

beforeAll(async () => {
  environment = (await openEnvironment("debian:12-base"))!;
  scratchBase = await scratchDisk(10_240);
  directory = mkdtempSync(join(tmpdir(), "pyro-vmm-test-"));
  const saysHello = async (...[port, signal]: Parameters<typeof hello>) => (await hello(port, signal)).close();
  accelerator = (await chooseAccelerator({ kernel: environment.kernel, initramfs: environment.initramfs, saysHello, setting: "auto", guestKey: environment.initramfsDigest })).accelerator;
});
afterEach(() => Promise.all(running.splice(0).map((vm) => vm.end())));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const hello = (port: RunningVm["ports"][number], signal: AbortSignal) => connectChannel(port, { fresh: true, signal });

async function start(changes: Partial<VmSpec> = {}): Promise<RunningVm> {
  const { kernel, initramfs, rootDisk } = environment;
  const vm = await startVm({ vcpuCount: 1, memMib: 256, kernel, initramfs, rootDisk, scratchBase, temporaryDirectory: directory, ttlSeconds: 200, ...changes }, { accelerator });
  running.push(vm);
  return vm;
}
const boot = (vm: RunningVm) => bootDeadline(vm, (abort) => hello(vm.ports[0]!, abort));

test("guests that share their disks say hello, leave the disks alone and nothing behind", async () => {
  const before = statSync(scratchBase).mtimeMs;
  const vms = await Promise.all([start(), start({ vcpuCount: 2 })]);
  await Promise.all(vms.map(boot));
  expect(readdirSync(directory)).toEqual([]);
  await Promise.all(vms.map((vm) => vm.end()));
  for (const vm of vms) expect(await vm.exited).toMatchObject({ reason: "killed" });
  expect(statSync(scratchBase).mtimeMs).toBe(before);
  expect(processesWith(environment.kernel)).toEqual([]);
});

test("QEMU runs in its sandbox, with the descriptors it was given and no others of ours", async () => {
  const vm = await start();
  await boot(vm);
  const qemu = readFileSync(`/proc/${vm.pid}/task/${vm.pid}/children`, "latin1").trim();
  const status = readFileSync(`/proc/${qemu}/status`, "latin1");
  expect(status).toMatch(/^CapBnd:\t0+$[^]*^NoNewPrivs:\t1$[^]*^Seccomp:\t2$/m);
  const pieces = new Map((await inspectConfinement()).map(({ name, had }) => [name, had]));
  if (pieces.get("calls")) expect(status).toMatch(/^Seccomp_filters:\t3$/m); // two of the keeper's, and QEMU's own
  if (pieces.get("namespaces")) expect(status).toMatch(/^NSpid:\t\d+\t1$/m);
  if (pieces.get("user")) expect(Number(/^Uid:\t(\d+)/m.exec(status)![1])).toBeGreaterThanOrEqual(0x7000_0000);
  if (pieces.get("files")) expect(readdirSync(`/proc/${qemu}/root`).filter((name) => ["home", "root", "tmp", "proc", "dev"].includes(name))).toEqual([]);
  const targets = readdirSync(`/proc/${qemu}/fd`).map((fd) => statLink(`/proc/${qemu}/fd/${fd}`));
  expect(targets.filter((target) => target.startsWith("/") && ![environment.rootDisk, scratchBase, "/dev/null", "/dev/urandom", "/dev/kvm"].includes(target) && !target.startsWith(directory))).toEqual([]);
});

test("a link to QEMU and a script that executes it are as good as QEMU, and one that can't do that in a confinement is told so", async () => {
  const before = process.env["PYRO_QEMU"];
  const qemu = execFileSync("sh", ["-c", `command -v ${before ?? "qemu-system-x86_64"}`], { encoding: "utf8" }).trim();
  const wrapper = (name: string, text: string) => {
    const path = join(directory, name);
    writeFileSync(path, text, { mode: 0o755 });
    process.env["PYRO_QEMU"] = path;
  };
  try {
    wrapper("plain", `#!/usr/bin/env sh\nexport WRAPPED=1\nexec ${qemu} "$@"\n`);
    await boot(await start());
    process.env["PYRO_QEMU"] = join(directory, "link");
    symlinkSync(qemu, process.env["PYRO_QEMU"]);
    await boot(await start()); // its modules and firmware are looked for beside what it is a link to
    if (!new Map((await inspectConfinement()).map(({ name, had }) => [name, had])).get("calls")) return;
    wrapper("forks", `#!/bin/sh\nhere=$(dirname "$0")\nexec ${qemu} "$@"\n`);
    await expect(boot(await start())).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringContaining("Cannot fork") as string, hint: expect.stringMatching(/forks is a script\. .*set PYRO_QEMU to QEMU itself\.$/) as string });
  } finally {
    if (before === undefined) delete process.env["PYRO_QEMU"];
    else process.env["PYRO_QEMU"] = before;
    for (const name of ["plain", "forks", "link"]) rmSync(join(directory, name), { force: true });
  }
});

test("the time to live ends a VM, and that is what it says", async () => {
  const vm = await start({ ttlSeconds: 1 });
  await expect(boot(vm)).rejects.toMatchObject({ code: "TIMEOUT", message: expect.stringContaining("time to live ended before its guest was ready") as string });
  expect(await vm.exited).toMatchObject({ reason: "ttl", code: 124 });
});

test("a VM holds its locks for as long as it lives", async () => {
  const vm = await start({ lockShared: [environment.lockFile] });
  expect(await tryLock(environment.lockFile)).toBe(undefined);
  await vm.end();
  const lock = await tryLock(environment.lockFile);
  expect(lock).toBeDefined();
  await lock!.release();
});

test("a kernel that is none fails with what QEMU says of it", async () => {
  const vm = await start({ kernel: "/etc/passwd" });
  await expect(boot(vm)).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringMatching(/status 1: \S/) as string });
});

test("a kernel that panics fails with its console's end", async () => {
  const vm = await start({ kernelArguments: ["rdinit=/nothing", "root=/dev/none", "init=/nothing"] });
  await expect(boot(vm)).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringMatching(/powered off or crashed[^]*Kernel panic/) as string });
  expect((await vm.exited).reason).toBe("guest");
});

test("an abort ends the VM, whenever it comes", async () => {
  for (const ms of [0, 5, 30, 100, 800]) {
    const controller = new AbortController();
    const { kernel, initramfs } = environment;
    setTimeout(() => controller.abort(), ms);
    await startVm({ vcpuCount: 1, memMib: 256, kernel, initramfs, temporaryDirectory: directory }, { accelerator, signal: controller.signal }).then(
      async (vm) => expect(await vm.exited).toMatchObject({ reason: "killed" }),
      (error: unknown) => expect(error).toMatchObject({ code: "CANCELLED" }),
    );
    expect(await eventually(() => processesWith(kernel).length === 0)).toBe(true);
  }
});

function statLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
