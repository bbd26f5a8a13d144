/** Virtual machines. The table of monitors is here; a new one is a file in `backends/` and a line. */
import { qemu } from "./backends/qemu.js";
import { choose, type AcceleratorChoice, type AcceleratorOptions } from "./accelerator.js";
import type { Accelerator, Backend, Forking, RunningVm, VmmVersion, VmSpec } from "./vmm.js";

const backends: readonly [Backend, ...Backend[]] = [qemu];

/** The monitor that is used: the first one, as long as there is one. */
const backend = backends[0];

/** Starts a VM that belongs to this process. It runs; whether a guest is alive in it is for `bootDeadline` to find out. */
export function startVm(spec: VmSpec, options: { accelerator: Accelerator; signal?: AbortSignal }): Promise<RunningVm> {
  return backend.start(spec, options.accelerator, options.signal);
}

/** How VMs start from a frozen one; undefined where the monitor can't do that. */
export const forking: Forking | undefined = backend.forking;

/** Throws HOST_MISSING when it is not installed. Starts no process when it has not changed since it was last asked. */
export function qemuVersion(signal?: AbortSignal): Promise<VmmVersion> {
  return backend.version(signal);
}

/** Whether guests run under KVM or emulated. May boot a small guest to find out; remembers the answer. */
export function chooseAccelerator(options: AcceleratorOptions): Promise<AcceleratorChoice> {
  return choose(backend, options);
}

export { inspectKvm, type AcceleratorChoice, type AcceleratorOptions, type KvmAccess, type KvmVerdict } from "./accelerator.js";
export { inspectLimits, type LimitsVerdict } from "./host-limits.js";
export { inspectConfinement, type ConfinementPiece } from "./confinement.js";
export { hostBootId, hostUptimeMs } from "./host-facts.js";
export { bootDeadline, bootLimits, type BootLimits } from "./boot-deadline.js";
export { harmless } from "./console.js";
export { findVm, logTail, placeNames, portCount, readExit, syncDisk, type FoundVm, type PlaceExit, type VmUsage } from "./place.js";
export type { Accelerator, Forking, FreezableVm, GatewayProgram, RunningVm, VmExit, VmmVersion, VmPlace, VmProgress, VmSpec } from "./vmm.js";
