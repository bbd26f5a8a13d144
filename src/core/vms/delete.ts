/** Ends a VM and removes all that is left of it. */
import { knowVm, removeVm, withVm, type Known } from "./store.js";

/** Throws NOT_FOUND, CANCELLED. */
export function deleteVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<{ vmId: string; deleted: true }> {
  const work = async ({ found }: Known) => {
    await found?.end();
    await removeVm(vmId);
    return { vmId, deleted: true as const };
  };
  // Not behind whoever stops it: a guest may take minutes for that, and nothing of it is to be kept any more.
  return withVm(vmId, options.signal, work, () => void endNow(vmId).catch(() => {}));
}

async function endNow(vmId: string): Promise<void> {
  const { found } = await knowVm(vmId);
  await found?.end().finally(() => found.release());
}
