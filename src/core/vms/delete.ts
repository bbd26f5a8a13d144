/** Ends a VM and removes all that is left of it. */
import { removeVm, withVm } from "./store.js";

/** Throws NOT_FOUND, CANCELLED. */
export function deleteVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<{ vmId: string; deleted: true }> {
  return withVm(vmId, options.signal, async ({ found }) => {
    await found?.end();
    await removeVm(vmId);
    return { vmId, deleted: true };
  });
}
