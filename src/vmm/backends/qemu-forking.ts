/**
 * Freezing a booted machine and going on from it. Memory is a file that the template's QEMU shares and each fork's maps privately, so
 * only the devices' state (some 70 KB) has to be carried over: migration with `x-ignore-shared` (docs/devel/migration.rst of QEMU).
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open, readFile, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { findProgram } from "../../base/child.js";
import { checkSignal, sleep, withDeadline } from "../../base/deadline.js";
import { PyroError, toPyroError } from "../../base/error.js";
import { settings } from "../../base/settings.js";
import { settled } from "../../base/settled.js";
import { canSealMemory } from "../confinement.js";
import { fileKey, hostBootId } from "../host-facts.js";
import { tscKhz } from "../tsc.js";
import type { Accelerator, FreezableVm, Forking, RunningVm, VmSpec } from "../vmm.js";
import { bootCommand, Descriptors, forkCommand, type Disks } from "./qemu-command.js";
import { openScratch, writeOverlay } from "./qemu-scratch.js";
import { checkPorts, launch, openDisk, type Process } from "./qemu-process.js";

export const forking: Forking = { host, machine, startTemplate, fork };

/** A 32-processor machine's state is under 1 MiB; more means that memory is in it. */
const maxStateBytes = 64 << 20;
const freezeMs = 60_000;
const fileNames = { memory: "memory", scratch: "scratch", state: "device-state" } as const;

/**
 * Templates don't outlive a boot of the host: the clock's rate is measured anew then, and after a crash the files might be half written
 * (nothing is synced, for that reason).
 */
async function host(): Promise<string> {
  const [build, boot] = await Promise.all([findProgram(settings.qemu()).then(fileKey), hostBootId()]);
  return `${boot} ${build}`;
}

async function machine(spec: VmSpec, accelerator: Accelerator): Promise<string> {
  const placeholder = { fd: 0 } as FileHandle;
  const disks: Disks = {
    ...(spec.rootDisk !== undefined && { root: placeholder }),
    ...(spec.scratchBase !== undefined && { scratch: { base: placeholder, top: placeholder } }),
  };
  const [tsc, sealable, cpu] = await Promise.all([tscKhz(), canSealMemory(), accelerator === "kvm" ? processor() : ""]);
  const words = bootCommand(new Descriptors(), unplaced(spec), accelerator, tsc, disks, { file: placeholder, share: true, sealable });
  return createHash("sha256").update(JSON.stringify([words, spec.rootDisk, spec.scratchBase, cpu])).digest("hex");
}

/** The machine as every guest of it sees it, whoever reaches it by whatever way, and whatever it reaches. */
function unplaced({ place: _place, ports: _ports, gateway: _gateway, ...spec }: VmSpec): VmSpec {
  return spec;
}

/** What the host's first processor is and can: a guest under KVM sees it. */
async function processor(): Promise<string> {
  const first = (await readFile("/proc/cpuinfo", "latin1")).split("\n\n")[0] ?? "";
  return first.split("\n").filter((line) => /^(vendor_id|cpu family|model|stepping|microcode|flags)/.test(line)).join("\n");
}

async function startTemplate(machineSpec: VmSpec, accelerator: Accelerator, directory: string, signal?: AbortSignal): Promise<FreezableVm> {
  const spec = unplaced(machineSpec);
  const files: FileHandle[] = [];
  const make = async (name: string) => {
    const file = await open(join(directory, name), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    files.push(file);
    return file;
  };
  try {
    const [tsc, sealable] = await Promise.all([tscKhz(signal), canSealMemory()]);
    const disks: Disks = { ...(spec.rootDisk !== undefined && { root: await openDisk(spec.rootDisk, files) }) };
    if (spec.scratchBase !== undefined) {
      const base = await openDisk(spec.scratchBase, files);
      const top = await make(fileNames.scratch);
      await writeOverlay(top, base);
      disks.scratch = { base, top };
    }
    const memory = await make(fileNames.memory);
    await memory.truncate(spec.memMib * 1048576);
    checkSignal(signal);
    const stdio = new Descriptors();
    const args = bootCommand(stdio, spec, accelerator, tsc, disks, { file: memory, share: true, sealable });
    const process = await launch(args, stdio, spec, accelerator, signal);
    return { ...process.vm, freeze: () => freeze(process, directory) };
  } finally {
    await Promise.allSettled(files.map((file) => file.close()));
  }
}

/** QEMU 7.2 sends its state to a socket. It gets one by the monitor: confined, it finds none by a name. */
async function freeze({ vm, qmp }: Process, directory: string): Promise<void> {
  let socket: Duplex | undefined;
  try {
    const frozen = (async () => {
      socket = await qmp.handSocket("state");
      const received = receive(socket);
      await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: true }] });
      await qmp.execute("migrate", { uri: "fd:state" });
      const state = await received;
      await untilMigrated(qmp);
      return state;
    })();
    const state = await withDeadline(Promise.race([frozen, vm.exited.then((exit): never => {
      throw new PyroError("VMM_EXITED", `QEMU ended while it was frozen: ${exit.stderr}`);
    })]), freezeMs, "Freezing the template");
    await vm.end();
    await writeFile(join(directory, fileNames.state), state, { mode: 0o600, flag: "wx" });
  } finally {
    socket?.destroy();
    await vm.end();
  }
}

/** Takes all that comes until its end. */
function receive(socket: Duplex): Promise<Buffer> {
  const received = new Promise<Buffer>((resolve, reject) => {
    const parts: Buffer[] = [];
    let total = 0;
    socket.on("data", (part: Buffer) => {
      total += part.length;
      if (total > maxStateBytes) socket.destroy(new PyroError("PROTOCOL", `The state of the devices has more than ${maxStateBytes} bytes.`));
      else parts.push(part);
    });
    socket.once("end", () => resolve(Buffer.concat(parts)));
    socket.once("error", reject);
    socket.once("close", () => reject(new PyroError("VMM_EXITED", "QEMU broke off sending its state.")));
  });
  received.catch(() => {}); // it is waited for later
  return received;
}

/** Its state is sent a moment before QEMU counts it as done and has let go of the disks. */
async function untilMigrated(qmp: Process["qmp"]): Promise<void> {
  for (;;) {
    const { status, "error-desc": reason } = (await qmp.execute("query-migrate")) as { status?: unknown; "error-desc"?: unknown };
    if (status === "completed") return;
    if (status === "failed" || status === "cancelled") throw new PyroError("INTERNAL", `QEMU could not save the machine: ${String(reason).slice(0, 500)}`);
    await sleep(2);
  }
}

async function fork(spec: VmSpec, accelerator: Accelerator, directory: string, signal?: AbortSignal): Promise<RunningVm> {
  checkPorts(spec);
  const files: FileHandle[] = [];
  const opened = async (opening: Promise<FileHandle>) => {
    const file = await opening;
    files.push(file);
    return file;
  };
  try {
    // All through one handle: files of one template, also if another takes its place now.
    const place = await opened(open(directory, constants.O_RDONLY | constants.O_DIRECTORY));
    const at = (name: string) => `/proc/self/fd/${place.fd}/${name}`;
    const ofTemplate = (name: string) => opened(open(at(name), constants.O_RDONLY));
    const [sealable, memory, state, root, scratch] = await settled([
      canSealMemory(),
      ofTemplate(fileNames.memory),
      ofTemplate(fileNames.state),
      spec.rootDisk === undefined ? undefined : openDisk(spec.rootDisk, files),
      spec.scratchBase === undefined ? undefined : openScratch(spec, spec.scratchBase, files, at(fileNames.scratch)),
    ]);
    const disks: Disks = { ...(root !== undefined && { root }), ...(scratch !== undefined && { scratch }) };
    checkSignal(signal);
    const stdio = new Descriptors(spec.place === undefined ? "ours" : "keeper");
    const args = forkCommand(stdio, spec, accelerator, disks, { file: memory, share: false, sealable });
    const stateFd = stdio.add(state.fd);
    const { vm, qmp, giveUp } = await launch(args, stdio, spec, accelerator, signal);
    // Written before QEMU reads any of it; the template was running when it was saved, so it runs as soon as it is loaded. A QEMU that does not get to it shows
    // in its processor time (`bootDeadline`): among hundreds that start at once a minute is nothing.
    for (const step of [
      qmp.order("migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: true }] }),
      qmp.order("migrate-incoming", { uri: `fd:${stateFd}` }),
    ]) step.catch((error: unknown) => giveUp(toPyroError(error)));
    return vm;
  } finally {
    await Promise.allSettled(files.map((file) => file.close()));
  }
}
