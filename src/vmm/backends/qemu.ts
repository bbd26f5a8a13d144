/**
 * QEMU's `microvm` machine. A VM of this process leaves nothing on disk: monitor, console and ports are inherited socket
 * pairs, the scratch disk is a file without a name. QEMU runs in its own seccomp sandbox and under the keeper, so it dies with us.
 */
import type { FileHandle } from "node:fs/promises";
import { findProgram, runChild } from "../../base/child.js";
import { checkSignal } from "../../base/deadline.js";
import { PyroError } from "../../base/error.js";
import { settings } from "../../base/settings.js";
import { harmless } from "../console.js";
import { fileKey, readFact, writeFact } from "../host-facts.js";
import { tscKhz } from "../tsc.js";
import type { Accelerator, Backend, RunningVm, VmmVersion, VmSpec } from "../vmm.js";
import { bootCommand, Descriptors, type Disks } from "./qemu-command.js";
import { forking } from "./qemu-forking.js";
import { openScratch } from "./qemu-scratch.js";
import { checkPorts, launch, openDisk } from "./qemu-process.js";

export const qemu: Backend = { name: "qemu", version, start, forking };

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
  checkPorts(spec);
  const files: FileHandle[] = [];
  try {
    const tsc = await tscKhz(signal);
    const disks = await openDisks(spec, files);
    checkSignal(signal);
    const stdio = new Descriptors(spec.place === undefined ? "ours" : "keeper");
    const args = bootCommand(stdio, spec, accelerator, tsc, disks);
    return (await launch(args, stdio, spec, accelerator, signal)).vm;
  } finally {
    await Promise.allSettled(files.map((file) => file.close())); // QEMU has its own copies by now
  }
}

async function openDisks(spec: VmSpec, files: FileHandle[]): Promise<Disks> {
  const disks: Disks = { ...(spec.rootDisk !== undefined && { root: await openDisk(spec.rootDisk, files) }) };
  if (spec.scratchBase !== undefined) disks.scratch = await openScratch(spec, spec.scratchBase, files);
  return disks;
}
