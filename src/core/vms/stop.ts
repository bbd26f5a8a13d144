/** Ends a VM and keeps its record, its console's log and its disk. */
import { checkSignal, follow, sleep } from "../../base/deadline.js";
import { syncDisk } from "../../vmm/index.js";
import { connectVm, stopPort } from "./connect.js";
import { next } from "./lifecycle.js";
import { publicVm, writeVmRecord, type Vm, type VmRecord } from "./record.js";
import { lookAt, notFound, removeVm, withVm, type Known } from "./store.js";

/** How long a guest has to write its disk and power itself off, milliseconds; then it is ended as it is. */
const powerOffMs = 10_000;

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
  await Promise.race([work.catch(() => {}), sleep(powerOffMs, patience.signal).catch(() => {})]);
  patience.abort();
}
