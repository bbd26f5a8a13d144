/**
 * QEMU's `microvm` machine. A VM of this process leaves nothing on disk: monitor, console and ports are inherited socket
 * pairs, the scratch disk is a file without a name. QEMU runs in its own seccomp sandbox and under the keeper, so it dies with us.
 */
import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import type { Duplex, Readable } from "node:stream";
import { findProgram, keepChild, keeperTtlStatus, runChild, type ChildExit, type ChildStdio } from "../../base/child.js";
import { checkSignal } from "../../base/deadline.js";
import { PyroError, systemCode } from "../../base/error.js";
import { settings } from "../../base/settings.js";
import { ConsoleLog, harmless } from "../console.js";
import { fileKey, readFact, writeFact } from "../host-facts.js";
import { childrenCpuMs } from "../process-time.js";
import { emptyOverlay } from "../qcow2.js";
import { Qmp } from "../qmp.js";
import { tscKhz } from "../tsc.js";
import { openUnnamed } from "../unnamed-file.js";
import type { Accelerator, Backend, RunningVm, VmExit, VmmVersion, VmSpec } from "../vmm.js";

export const qemu: Backend = { name: "qemu", version, start };

const maxPorts = 8;
const maxStderrChars = 8192;
/** Translated code, MiB. Unbounded it grows to hundreds; 32 was measured to cost nothing in speed. */
const translationMib = 32;

async function version(signal?: AbortSignal): Promise<VmmVersion> {
  const program = await findProgram(settings.qemu());
  const build = await fileKey(program);
  const kept = await readFact("qemu", build);
  if (typeof kept === "string") return { version: kept, build };
  const { code, stdout, stderr } = await runChild(program, ["--version"], { maxOutputBytes: 64 << 10, timeoutMs: 30_000, ...(signal && { signal }) });
  const found = /version ([0-9]+\.[0-9]+[0-9.]*)/.exec(stdout.toString("latin1"))?.[1];
  if (code !== 0 || found === undefined) {
    throw new PyroError("HOST_MISSING", `${program} does not tell its version (status ${code}): ${harmless(Buffer.from(stderr)).trim()}`, { hint: "sudo apt-get install -y qemu-system-x86" });
  }
  await writeFact("qemu", build, found);
  return { version: found, build };
}

async function start(spec: VmSpec, accelerator: Accelerator, signal?: AbortSignal): Promise<RunningVm> {
  const portCount = spec.ports ?? 1;
  if (!Number.isInteger(portCount) || portCount < 1 || portCount > maxPorts) throw new PyroError("INVALID_ARGUMENT", `A VM with ${portCount} ports; allowed are 1 to ${maxPorts}.`);
  const files: FileHandle[] = [];
  try {
    const tsc = await tscKhz(signal);
    const disks = await openDisks(spec, files);
    checkSignal(signal);
    const stdio = new Descriptors();
    const args = [
      ...machine(spec, accelerator),
      "-kernel", spec.kernel,
      "-initrd", spec.initramfs,
      "-append", [...kernelArguments(tsc), ...(spec.kernelArguments ?? [])].join(" "),
      ...monitorAndConsole,
      ...ports(stdio, portCount),
      ...blockDevices(stdio, disks),
      ...otherDevices,
    ];
    const child = await keepChild(settings.qemu(), args, {
      stdio: stdio.list,
      graceMs: 0,
      ...(spec.ttlSeconds !== undefined && { ttlSeconds: spec.ttlSeconds }),
      ...(spec.lockShared !== undefined && { lockShared: spec.lockShared }),
    });
    return attach(child, accelerator, portCount, signal);
  } finally {
    await Promise.allSettled(files.map((file) => file.close())); // QEMU has its own copies by now
  }
}

/** The descriptors that QEMU inherits, numbered as they are asked for. */
class Descriptors {
  readonly list: (ChildStdio[number])[] = ["ignore", "ignore", "pipe", "pipe", "pipe"];
  add(what: ChildStdio[number]): number {
    return this.list.push(what) - 1;
  }
}
const monitorFd = 3;
const consoleFd = 4;
const firstPortFd = 5;

function machine(spec: VmSpec, accelerator: Accelerator): string[] {
  return [
    "-M", "microvm,acpi=on,isa-serial=on", // the interrupt controller and timer that microvm could go without stay: TCG hangs without them
    ...(accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", `tcg,thread=multi,tb-size=${translationMib}`, "-cpu", "max"]),
    "-smp", String(spec.vcpuCount),
    "-m", `${spec.memMib}M`,
    "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
    "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  ];
}

/**
 * Why each is there stands beside it; times are processor time of a cold boot under TCG, medians of five. Measured and left
 * out, because they save nothing: mitigations=off, nokaslr, lsm=, audit=0, random.trust_cpu, i8042.noaux, i8042.nokbd, numa=off,
 * nowatchdog, no_timer_check, noreplace-smp, rcupdate.rcu_expedited, init_on_alloc=0.
 */
function kernelArguments(tsc: number): string[] {
  return [
    "console=ttyS0",
    "quiet", // errors and panics still show; all of it is 17 KB, each byte an exit to the emulated serial port
    `tsc_early_khz=${tsc}`, // else the kernel measures it against an emulated timer, which fails under load and then hangs
    "tsc=reliable",
    "reboot=t", // a triple fault, which QEMU sees as a reboot: with -no-reboot it ends
    "panic=-1", // at once
    "cryptomgr.notests", // the kernel's self-tests of its ciphers: 0.3 s of 2.1 s
  ];
}

const monitorAndConsole = [
  "-chardev", `socket,id=monitor,fd=${monitorFd}`, "-mon", "chardev=monitor,mode=control",
  "-chardev", `socket,id=console,fd=${consoleFd}`, "-serial", "chardev:console",
];

function ports(stdio: Descriptors, count: number): string[] {
  const args = ["-device", `virtio-serial-device,max_ports=${count + 1}`];
  for (let port = 0; port < count; port++) {
    args.push("-chardev", `socket,id=port${port},fd=${stdio.add("pipe")}`, "-device", `virtserialport,chardev=port${port},name=pyro.${port}`);
  }
  return args;
}

interface Disks {
  root?: FileHandle;
  scratchBase?: FileHandle;
  scratch?: FileHandle;
}

async function openDisks(spec: VmSpec, files: FileHandle[]): Promise<Disks> {
  const opened = async (handle: Promise<FileHandle>): Promise<FileHandle> => {
    files.push(await handle);
    return files.at(-1)!;
  };
  const disks: Disks = {};
  if (spec.rootDisk !== undefined) disks.root = await opened(openDisk(spec.rootDisk));
  if (spec.scratchBase !== undefined) {
    disks.scratchBase = await opened(openDisk(spec.scratchBase));
    const overlay = emptyOverlay((await disks.scratchBase.stat()).size);
    disks.scratch = await opened(openUnnamed(spec.temporaryDirectory));
    await disks.scratch.write(overlay, 0, overlay.length, 0);
  }
  return disks;
}

async function openDisk(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new PyroError("ENVIRONMENT_INVALID", `The disk image ${path} is not there.`, { cause: error, hint: "`pyro env pull` makes the environment again." });
  }
}

/** Disks that are thrown away need no flush and no lock; blocks the guest discards go back to the host. */
function blockDevices(stdio: Descriptors, disks: Disks): string[] {
  const args: string[] = [];
  let set = 0;
  const file = (node: string, handle: FileHandle, readOnly: boolean) => {
    set++;
    args.push("-add-fd", `fd=${stdio.add(handle.fd)},set=${set}`);
    args.push("-blockdev", JSON.stringify({ driver: "file", "node-name": node, filename: `/dev/fdset/${set}`, "read-only": readOnly, locking: "off", discard: "unmap", cache: { direct: false, "no-flush": true } }));
  };
  const device = (drive: string) => args.push("-device", `virtio-blk-device,drive=${drive},serial=${drive}`);
  if (disks.root !== undefined) {
    file("root-file", disks.root, true);
    args.push("-blockdev", JSON.stringify({ driver: "raw", "node-name": "root", file: "root-file", "read-only": true }));
    device("root");
  }
  if (disks.scratch !== undefined && disks.scratchBase !== undefined) {
    file("base-file", disks.scratchBase, true);
    args.push("-blockdev", JSON.stringify({ driver: "raw", "node-name": "base", file: "base-file", "read-only": true }));
    file("scratch-file", disks.scratch, false);
    args.push("-blockdev", JSON.stringify({ driver: "qcow2", "node-name": "scratch", file: "scratch-file", backing: "base", discard: "unmap", cache: { direct: false, "no-flush": true } }));
    device("scratch");
  }
  return args;
}

/** The card has no back end: no network. It is there so that a guest looks the same with and without one. */
const otherDevices = [
  "-device", "virtio-net-device,mac=52:54:00:70:79:72",
  "-device", "virtio-balloon-device,free-page-reporting=on",
];

function attach(child: Awaited<ReturnType<typeof keepChild>>, accelerator: Accelerator, portCount: number, signal?: AbortSignal): RunningVm {
  const guestConsole = new ConsoleLog();
  child.stdio[consoleFd]!.on("data", (chunk: Buffer) => guestConsole.add(chunk));
  const stderr = new ConsoleLog();
  (child.stdio[2] as Readable).on("data", (chunk: Buffer) => stderr.add(chunk));
  new Qmp(child.stdio[monitorFd]!);
  let killed = false;
  let lastCpuMs: number | undefined;
  const end = async () => {
    killed = true;
    await child.end();
  };
  const onAbort = () => void end();
  signal?.addEventListener("abort", onAbort, { once: true });
  const exited = child.exited.then((exit): VmExit => {
    signal?.removeEventListener("abort", onAbort);
    return { reason: exitReason(exit, killed), ...exit, stderr: complaint(stderr.tail()) };
  });
  if (signal?.aborted) onAbort();
  return {
    pid: child.pid,
    accelerator,
    ports: child.stdio.slice(firstPortFd, firstPortFd + portCount) as Duplex[],
    console: () => guestConsole.tail(),
    progress: async () => ({ cpuMs: (lastCpuMs = (await childrenCpuMs(child.pid)) ?? lastCpuMs), consoleBytes: guestConsole.totalBytes }),
    exited,
    end,
  };
}

/** What QEMU said, without its remark on the card that is meant to have no back end. */
function complaint(text: string): string {
  return text.split("\n").filter((line) => !/: warning: nic \S+ has no peer$/.test(line)).join("\n").slice(-maxStderrChars);
}

function exitReason(exit: ChildExit, killed: boolean): VmExit["reason"] {
  if (exit.code === keeperTtlStatus) return "ttl";
  if (killed) return "killed";
  return exit.code === 0 ? "guest" : "failed";
}
