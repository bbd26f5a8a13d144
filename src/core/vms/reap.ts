/** Ends what expired or lost its owner and clears away what a crash left. Any number of processes may do it at once. */
import { checkSignal } from "../../base/deadline.js";
import { toPyroError } from "../../base/error.js";
import { log } from "../../base/log.js";
import { findVm } from "../../vmm/index.js";
import { writeVmRecord } from "./record.js";
import { listLockIds, listVmIds, lookAt, removeStrayLock, removeVm, tryVmLock, vmDirectory } from "./store.js";

/** The ids of those that are gone now and had a record. Throws CANCELLED, DENIED; what can't be cleared away is left for the next time, and logged. */
export async function reapExpired(options: { signal?: AbortSignal } = {}): Promise<{ reaped: string[] }> {
  const reaped: string[] = [];
  for (const vmId of await listVmIds()) {
    checkSignal(options.signal);
    try {
      if (await reap(vmId)) reaped.push(vmId);
    } catch (error) {
      log("a VM could not be cleared away", { vmId, why: toPyroError(error).message });
    }
  }
  const there = new Set(await listVmIds());
  for (const vmId of await listLockIds()) {
    checkSignal(options.signal);
    if (!there.has(vmId)) await removeStrayLock(vmId).catch((error: unknown) => log("a lock could not be removed", { vmId, why: toPyroError(error).message }));
  }
  return { reaped };
}

async function reap(vmId: string): Promise<boolean> {
  const seen = await lookAt(vmId);
  if (typeof seen === "object") {
    seen.found?.release();
    if (!seen.isNews) return false;
  }
  const lock = await tryVmLock(vmId);
  if (lock === undefined) return false; // being made, started, stopped or removed: whoever does that leaves it right
  try {
    const known = await lookAt(vmId); // as it is now that nobody changes it
    if (typeof known === "object") {
      known.found?.release();
      if (known.isNews) await writeVmRecord(known.directory, known.record);
      return false;
    }
    const found = await findVm(vmDirectory(vmId));
    await found?.end();
    await removeVm(vmId);
    log("VM cleared away", { vmId, why: known === "gone" ? "its time or its command was over" : "it has no record" });
    return known === "gone";
  } finally {
    await lock.release();
  }
}
