/** Ends a VM and keeps its record, its console's log and its disk. */
import { checkSignal, follow, runningSleep } from "../../base/deadline.js";
import { syncDisk, type FoundVm } from "../../vmm/index.js";
import { connectVm, stopPort } from "./connect.js";
import { next } from "./lifecycle.js";
import { publicVm, writeVmRecord, type Vm, type VmRecord } from "./record.js";
import { lookAt, notFound, removeVm, withVm, type Known } from "./store.js";

/**
 * A guest has as long as it needs to write its disk and power itself off, unless it does nothing for `idleMs` (less than `busyCpuMs` of processor time, and nothing
 * that makes its disk larger) or is at it after `mostMs`; then it is ended as it is. Milliseconds; for tests to change. An idle guest under emulation uses 0.1 s in 10 s.
 */
export const powerOffPatience = { idleMs: 10_000, busyCpuMs: 200, mostMs: 180_000 };

/** Stopping one that is stopped is no error. Throws NOT_FOUND, INVALID_STATE for one that failed, DISK_FULL, CANCELLED. */
export function stopVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<Vm> {
  return withVm(vmId, options.signal, async (known) => {
    const { directory, record } = known;
    const stopped: VmRecord = { ...record, state: next(vmId, record.state, "stop", record.lastError) as VmRecord["state"] };
    if (known.found !== undefined) {
      await powerOff(known, options.signal);
      checkSignal(options.signal);
      await known.found.end();
      if ((await lookAt(vmId)) === "gone") {
        // Its time ended meanwhile, or it ran its one command.
        await removeVm(vmId);
        throw await notFound(vmId);
      }
      await syncDisk(directory);
    }
    await writeVmRecord(directory, stopped);
    return publicVm(stopped);
  });
}

/** Lets the guest write what it has in memory. One that does not answer, or does not want to, is ended all the same. */
async function powerOff(known: Known, signal?: AbortSignal): Promise<void> {
  const patience = follow(signal);
  const work = (async () => {
    const vm = await connectVm(known, { signal: patience.signal, ports: [stopPort] });
    await vm.channel.powerOff();
    await known.found!.exited;
  })();
  await Promise.race([work, idle(known.found!, patience.signal)]).catch(() => {});
  patience.abort();
}

/** Resolves when the guest has done nothing for a while, or is at it for too long. */
async function idle(found: FoundVm, over: AbortSignal): Promise<void> {
  const { idleMs, busyCpuMs, mostMs } = powerOffPatience;
  // Its keeper may not answer either.
  const look = () => Promise.race([found.usage(), runningSleep(idleMs, over).then(() => undefined)]).catch(() => undefined);
  let looked = look();
  for (let waitedMs = 0; waitedMs < mostMs; waitedMs += idleMs) {
    await runningSleep(idleMs, over);
    const before = await looked;
    const now = before && (await look());
    if (before === undefined || now === undefined || (now.cpuMs - before.cpuMs < busyCpuMs && now.diskBytes === before.diskBytes)) return;
    looked = Promise.resolve(now);
  }
}
