/** QEMU's command line: a `microvm` machine with its disks, ports and console, in words, and the descriptors that it inherits. */
import type { FileHandle } from "node:fs/promises";
import type { ChildStdio } from "../../base/child.js";
import { portCount } from "../place.js";
import type { Accelerator, VmSpec } from "../vmm.js";

/**
 * Translated code, MiB; it is thrown away whole when it is full, and takes memory only as it fills. gcc -O2 needs half the processor time
 * with 64 that it needs with 32, and no less with 128 or 256; git, tar and perl fit into 32.
 */
const translationMib = 64;
/**
 * All that can be emulated but ERMS, which says that `rep movsb` is fast: a kernel and a C library that believe it copy with it, and it is
 * emulated byte by byte. Without it git takes about 0.9 and tar about 0.85 of the processor time. Other models are no faster (bench/cpu-models.mjs).
 */
const emulatedCpu = "max,-erms";

/** The descriptors that QEMU inherits, numbered as they are asked for. */
export class Descriptors {
  readonly list: (ChildStdio[number])[];
  /** The one that the card's frames go through, where there is a gateway; the keeper puts a socket in its place. */
  cable: number | undefined;
  /** The memory's, which QEMU takes by name only. */
  memory: number | undefined;
  /** No holes are made into it, whatever QEMU asks for. */
  sealed = false;
  /** The console is ours to read, or the keeper's to log. */
  constructor(logged: "ours" | "keeper" = "ours") {
    this.list = ["ignore", "ignore", "pipe", "pipe", logged === "ours" ? "pipe" : "ignore"];
  }
  add(what: ChildStdio[number]): number {
    return this.list.push(what) - 1;
  }
}
export const monitorFd = 3;
export const consoleFd = 4;
export const firstPortFd = 5;

/** Open files; each layer of the scratch disk is copy-on-write over the one before. */
export interface Disks {
  root?: FileHandle;
  scratch?: { base: FileHandle; frozen?: FileHandle; top: FileHandle };
}

/** Guest memory in a file: shared (what the guest writes is in the file) or private (it stays in the process). */
export interface MemoryFile {
  file: FileHandle;
  share: boolean;
  /** Whether this host lets us keep a fork from making holes into it (`canSealMemory`). */
  sealable: boolean;
}

/** The whole command line of a machine that boots; with `memory`, one that can be frozen. */
export function bootCommand(stdio: Descriptors, spec: VmSpec, accelerator: Accelerator, tscKhz: number, disks: Disks, memory?: MemoryFile): string[] {
  const deviceWords = devices(stdio, spec, disks, memory); // first, as the ports have the first descriptors
  return [
    ...machine(spec, accelerator, memory === undefined ? undefined : memoryFile(stdio, spec, memory)),
    "-kernel", spec.kernel,
    "-initrd", spec.initramfs,
    "-append", [...kernelArguments(tscKhz, accelerator), ...(spec.kernelArguments ?? [])].join(" "),
    ...deviceWords,
  ];
}

/** The same machine, waiting for a state to go on from. It needs no kernel: that is in its memory. */
export function forkCommand(stdio: Descriptors, spec: VmSpec, accelerator: Accelerator, disks: Disks, memory: MemoryFile): string[] {
  const deviceWords = devices(stdio, spec, disks, memory);
  return [...machine(spec, accelerator, memoryFile(stdio, spec, memory)), ...deviceWords, "-incoming", "defer"];
}

function machine(spec: VmSpec, accelerator: Accelerator, memory: string | undefined): string[] {
  const type = "microvm,acpi=on,isa-serial=on"; // the interrupt controller and timer that microvm could go without stay: TCG hangs without them
  return [
    ...(memory === undefined ? ["-M", type] : ["-object", memory, "-M", `${type},memory-backend=ram`]),
    ...(accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", `tcg,thread=multi,tb-size=${translationMib}`, "-cpu", emulatedCpu]),
    "-smp", String(spec.vcpuCount),
    "-m", `${spec.memMib}M`,
    "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
    "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  ];
}

/**
 * By descriptor, so that it is the file that was opened and checked, whatever has its name by now. QEMU opens it for writing even where it maps it
 * privately; the keeper gives it the descriptor as we have opened it, so that no fork can write to a template's memory.
 */
function memoryFile(stdio: Descriptors, spec: VmSpec, { file, share, sealable }: MemoryFile): string {
  stdio.memory = stdio.add(file.fd);
  stdio.sealed = sealable && !share;
  return `memory-backend-file,id=ram,size=${spec.memMib}M,mem-path=/proc/self/fd/${stdio.memory},share=${share ? "on" : "off"}`;
}

/**
 * Why each is there stands beside it; times are processor time of a cold boot under TCG, medians of five. Measured and left
 * out, because they save nothing: mitigations=off, nokaslr, lsm=, audit=0, random.trust_cpu, i8042.noaux, i8042.nokbd, numa=off,
 * nowatchdog, no_timer_check, noreplace-smp, rcupdate.rcu_expedited, init_on_alloc=0.
 */
function kernelArguments(tsc: number, accelerator: Accelerator): string[] {
  return [
    "console=ttyS0",
    "quiet", // errors and panics still show; all of it is 17 KB, each byte an exit to the emulated serial port
    `tsc_early_khz=${tsc}`, // else the kernel measures it against an emulated timer, which fails under load and then hangs
    "tsc=reliable",
    "reboot=t", // a triple fault, which QEMU sees as a reboot: with -no-reboot it ends
    "panic=-1", // at once
    "cryptomgr.notests", // the kernel's self-tests of its ciphers: 0.3 s of 2.1 s
    // QEMU's translator (7.2) finds what it has translated by its virtual address. With programs at random ones, each exec has its loader, C library
    // and itself translated anew: /bin/true takes twice as long, a shell script four times, and the buffer is full every few dozen commands.
    ...(accelerator === "tcg" ? ["norandmaps"] : []),
  ];
}

/** The card is there also without a network, so that one template serves machines with and without one. */
function devices(stdio: Descriptors, spec: VmSpec, disks: Disks, memory: MemoryFile | undefined): string[] {
  return [
    "-chardev", `socket,id=monitor,fd=${monitorFd}`, "-mon", "chardev=monitor,mode=control",
    "-chardev", `socket,id=console,fd=${consoleFd}`, "-serial", "chardev:console",
    ...ports(stdio, spec),
    ...blockDevices(stdio, disks),
    ...card(stdio, spec),
    ...balloon(memory),
  ];
}

/**
 * By it the guest says which of its memory is free, and the host has that back (free page reporting; the guest loads its driver once that is worth
 * something). QEMU lets go of its pages of it, and, where memory is a file, makes holes into the file as well, also if it is mapped privately: in a
 * fork that would wipe the memory which all forks of a template have in common. The keeper makes it believe that it did; where it can't, there is no
 * balloon. A page that was given back has its template's content when it is used again: `page-poison=off` tells a kernel that would count on zeros
 * (init_on_free=1) not to report any.
 */
function balloon(memory: MemoryFile | undefined): string[] {
  return memory?.sealable === false ? [] : ["-device", "virtio-balloon-device,free-page-reporting=on,page-poison=off"];
}

/** The guest's card has always been there; that it has a back end is nothing that a guest's state would show. */
function card(stdio: Descriptors, { gateway }: VmSpec): string[] {
  const device = "virtio-net-device,mac=52:54:00:70:79:72";
  if (gateway === undefined) return ["-device", device];
  stdio.cable = stdio.add("ignore");
  return ["-netdev", `stream,id=net,server=off,addr.type=fd,addr.str=${stdio.cable}`, "-device", `${device},netdev=net`];
}

/** All ports are there in every machine, so that one template serves VMs of one process and VMs of many. */
function ports(stdio: Descriptors, { ports: attached = 1, place }: VmSpec): string[] {
  const args = ["-device", `virtio-serial-device,max_ports=${portCount + 1}`];
  for (let port = 0; port < portCount; port++) {
    const device = `virtserialport,nr=${port + 1},name=pyro.${port}`;
    // With a place it is a listening socket: the keeper puts it in the descriptor's place.
    if (place !== undefined) args.push("-chardev", `socket,id=port${port},fd=${stdio.add("ignore")},server=on,wait=off`);
    else if (port < attached) args.push("-chardev", `socket,id=port${port},fd=${stdio.add("pipe")}`);
    args.push("-device", place !== undefined || port < attached ? `${device},chardev=port${port}` : device);
  }
  return args;
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
  const raw = (node: string) => args.push("-blockdev", JSON.stringify({ driver: "raw", "node-name": node, file: `${node}-file`, "read-only": true }));
  const overlay = (node: string, backing: string, readOnly: boolean) =>
    args.push("-blockdev", JSON.stringify({ driver: "qcow2", "node-name": node, file: `${node}-file`, backing, ...(readOnly ? { "read-only": true } : { discard: "unmap", cache: { direct: false, "no-flush": true } }) }));
  // An error of the host's disk is the guest's to hear of. When that disk is full QEMU would otherwise stop the VM, which then looks like one that hangs.
  const device = (drive: string) => args.push("-device", `virtio-blk-device,drive=${drive},serial=${drive},werror=report,rerror=report`);
  if (disks.root !== undefined) {
    file("root-file", disks.root, true);
    raw("root");
    device("root");
  }
  if (disks.scratch !== undefined) {
    const { base, frozen, top } = disks.scratch;
    file("base-file", base, true);
    raw("base");
    if (frozen !== undefined) {
      file("frozen-file", frozen, true);
      overlay("frozen", "base", true);
    }
    file("scratch-file", top, false);
    overlay("scratch", frozen === undefined ? "base" : "frozen", false);
    device("scratch");
  }
  return args;
}
