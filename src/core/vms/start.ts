/** From a record to a VM that answers and that outlives this process. */
import { checkSignal } from "../../base/deadline.js";
import { toPyroError } from "../../base/error.js";
import { startVm as startAnswering, type StartOptions } from "../start.js";
import { next } from "./lifecycle.js";
import { hostUptimeMs, publicVm, writeVmRecord, type Vm, type VmRecord } from "./record.js";
import { withVm } from "./store.js";

/**
 * Starts a VM that was created, or boots one that was stopped, with the disk it had. Throws NOT_FOUND, INVALID_STATE, and what keeps a VM from starting: BOOT_FAILED,
 * HOST_MISSING, DISK_FULL …; the VM has failed then. CANCELLED leaves it as it was.
 */
export function startVm(vmId: string, options: StartOptions = {}): Promise<Vm> {
  return withVm(vmId, options.signal, async ({ directory, record }) => {
    next(vmId, record.state, "start", record.lastError);
    try {
      return publicVm(await start(directory, record, options));
    } catch (error) {
      checkSignal(options.signal);
      const failure = toPyroError(error);
      await writeVmRecord(directory, { ...record, state: next(vmId, record.state, "startFailed") as VmRecord["state"], lastError: failure.message });
      throw failure;
    }
  });
}

async function start(directory: string, record: VmRecord, options: StartOptions): Promise<VmRecord> {
  const { vmId, environment, vcpuCount, memMib, diskMib, state, environmentDigest } = record;
  const ttlSeconds = Math.max(1, Math.ceil((record.expiresAtUptimeMs - (await hostUptimeMs())) / 1000));
  const place = { directory, disk: state === "stopped" && environmentDigest !== undefined ? "kept" : "new" } as const;
  const vm = await startAnswering({ environment, vcpuCount, memMib, diskMib, ttlSeconds, vmId, place, ...(environmentDigest !== undefined && { environmentDigest }) }, options);
  try {
    const started: VmRecord = { ...record, state: "started", executionMode: "guest", accelerator: vm.accelerator, environmentDigest: vm.environmentDigest, bootMs: Math.round(vm.bootMs) };
    // Before it is let go: if we die in between, it ends, and the record says so.
    await writeVmRecord(directory, started);
    vm.release();
    return started;
  } catch (error) {
    await vm.end();
    throw error;
  }
}
