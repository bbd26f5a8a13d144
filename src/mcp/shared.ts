/** What all servers of one process have in common: over HTTP there is a server for each request. */
import { reapExpired, SharedVms } from "../core/index.js";
import { KeptResults } from "./kept-results.js";
import { Slots } from "./slots.js";

export interface Shared {
  readonly results: KeptResults;
  readonly slots: Slots;
  readonly vms: SharedVms;
  /** VMs that expired or lost their owner are cleared away beside the first call that makes one; starting a server does nothing of the kind. */
  clearAway(): void;
}

/** `maxVms` is how many VMs the tools of this process start or run commands in at the same time. */
export function createShared({ maxVms = 16 }: { maxVms?: number } = {}): Shared {
  let cleared = false;
  return {
    results: new KeptResults(),
    slots: new Slots(maxVms),
    vms: new SharedVms(),
    clearAway: () => {
      if (cleared) return;
      cleared = true;
      reapExpired().catch(() => {}); // the next one will
    },
  };
}
