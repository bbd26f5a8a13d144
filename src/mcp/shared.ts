/** What all servers of one process have in common: over HTTP there is a server for each request. */
import { runningSleep } from "../base/deadline.js";
import { reapExpired, SharedVms } from "../core/index.js";
import { KeptResults } from "./kept-results.js";
import { RunningVms } from "./running-vms.js";
import { Slots } from "./slots.js";

/** Calls that start no VM and run nothing in one. Each takes descriptors and a process or two for a moment. */
const maxBrief = 32;
/** More than the transports let in: over standard input whole chunks of messages come at once. */
const maxBriefWaiting = 4096;

/** For calls to put away what they began, when all ends. Milliseconds. */
const puttingAwayMs = 10_000;

export interface Shared {
  readonly results: KeptResults;
  /** For those that start a VM or run something in one. */
  readonly slots: Slots;
  /** For all others. */
  readonly briefSlots: Slots;
  readonly running: RunningVms;
  readonly vms: SharedVms;
  /** VMs that expired or lost their owner are cleared away beside the first call that makes one; starting a server does nothing of the kind. */
  clearAway(): void;
  /** `work` puts away what it began if it is aborted: this process does not end before, if that takes no longer than a moment. */
  tidily<T>(work: Promise<T>): Promise<T>;
  /** Resolves when such work is over, or the moment is. Called when all that is under way has been aborted. */
  tidied(): Promise<void>;
}

export interface VmLimits {
  /** How many VMs the tools of this process start or run commands in at the same time; other calls wait. Default 16. */
  maxVms?: number;
  /** How many VMs that outlive the calls which started them run at the same time; then there are no more. Default 64. */
  maxRunningVms?: number;
}

export function createShared({ maxVms = 16, maxRunningVms = 64 }: VmLimits = {}): Shared {
  let cleared = false;
  const tidy = new Set<Promise<unknown>>();
  return {
    results: new KeptResults(),
    slots: new Slots(maxVms),
    briefSlots: new Slots(maxBrief, maxBriefWaiting),
    running: new RunningVms(maxRunningVms),
    vms: new SharedVms(),
    clearAway: () => {
      if (cleared) return;
      cleared = true;
      reapExpired().catch(() => {}); // the next one will
    },
    tidily: (work) => {
      tidy.add(work);
      return work.finally(() => tidy.delete(work));
    },
    tidied: async () => {
      const enough = new AbortController();
      await Promise.race([Promise.allSettled(tidy), runningSleep(puttingAwayMs, enough.signal).catch(() => {})]);
      enough.abort();
    },
  };
}
