/** From a record to a VM that answers and that outlives this process. */
import { checkSignal } from "../../base/deadline.js";
import { toPyroError } from "../../base/error.js";
import { findVm } from "../../vmm/index.js";
import { openHost } from "../host-compat.js";
import { isHostsFault } from "../hosts-fault.js";
import { startVm as startAnswering, type StartOptions } from "../start.js";
import { next } from "./lifecycle.js";
import { publicVm, writeVmRecord, type Vm, type VmRecord } from "./record.js";
import { withVm } from "./store.js";
import { forgetHostRun } from "./host-run.js";
import { auditFileIn } from "./audit.js";

/** Of what a record keeps of an error, characters. */
const maxReason = 2000;

/**
 * Starts a VM that was created, or boots one that was stopped, with the disk it had. Throws NOT_FOUND, INVALID_STATE, and what keeps a VM from starting: BOOT_FAILED,
 * HOST_MISSING, DISK_FULL …; one that was created has failed then, unless its command may run on the host; one that was stopped still is. CANCELLED leaves it as it was.
 */
export function startVm(vmId: string, options: StartOptions = {}): Promise<Vm> {
  return withVm(vmId, options.signal, async ({ directory, record, isNews }) => {
    next(vmId, record.state, "start", record.lastError);
    if (isNews) await writeVmRecord(directory, record); // else how this start ends would be taken for how the last run did
    // Of a start that was broken off, perhaps: with its maker went the lock, and what it had started may still be at its end, with this disk. Where that can't be ended
    // this start has not begun, and so not failed.
    await (await findVm(directory))?.end();
    try {
      return publicVm(await start(directory, record, options));
    } catch (error) {
      checkSignal(options.signal);
      // A disk that a guest wrote is nowhere on the host.
      if (record.allowHostCompat && record.environmentDigest === undefined && isHostsFault(error)) return publicVm(await startOnHost(directory, record, error.message, options));
      const failure = toPyroError(error);
      const state = next(vmId, record.state, "startFailed") as VmRecord["state"];
      if (state === "failed") await writeVmRecord(directory, { ...record, state, lastError: failure.message });
      throw failure;
    }
  });
}

async function start(directory: string, record: VmRecord, options: StartOptions): Promise<VmRecord> {
  const { vmId, environment, vcpuCount, memMib, diskMib, ttlSeconds, expiresAtUptimeMs, state, environmentDigest, network } = record;
  const { publishedPorts: _former, ...before } = record;
  const place = { directory, disk: state === "stopped" && environmentDigest !== undefined ? "kept" : "new" } as const;
  const vm = await startAnswering({ environment, vcpuCount, memMib, diskMib, ttlSeconds, endsAtUptimeMs: expiresAtUptimeMs, vmId, place, ...(network && { network, auditFile: auditFileIn(directory) }), ...(environmentDigest !== undefined && { environmentDigest }) }, options);
  try {
    const started: VmRecord = { ...before, state: "started", executionMode: "guest", accelerator: vm.accelerator, environmentDigest: vm.environmentDigest, bootMs: Math.round(vm.bootMs), ...(vm.publishedPorts && { publishedPorts: vm.publishedPorts }), ...(vm.variables && { variables: Object.entries(vm.variables).map((pair) => pair.join("=")) }) };
    // Before it is let go: if we die in between, it ends, and the record says so.
    await writeVmRecord(directory, started);
    checkSignal(options.signal); // which has ended it, if it came meanwhile
    vm.release();
    return started;
  } catch (error) {
    await vm.end();
    await writeVmRecord(directory, record).catch(() => {}); // where it could not be written, it mostly says so still
    throw error;
  }
}

/** Nothing runs until the one command does; whether it could is found out now. */
async function startOnHost(directory: string, record: VmRecord, reason: string, { onPhase }: StartOptions): Promise<VmRecord> {
  const host = await openHost({ vmId: record.vmId, ttlSeconds: record.ttlSeconds, network: record.networkEnabled, reason });
  await host.end();
  const { lastError: _none, ...before } = record;
  const started: VmRecord = { ...before, state: "started", executionMode: "host_compat", warning: host.warning, hostReason: reason.slice(0, maxReason), bootMs: Math.round(host.bootMs) };
  await forgetHostRun(directory);
  await writeVmRecord(directory, started);
  onPhase?.({ phase: "start", executionMode: "host_compat", warning: host.warning });
  return started;
}
