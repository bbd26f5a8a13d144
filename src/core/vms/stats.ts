/** What a VM uses, as the host sees it and as the guest does. */
import { checkSignal, followFor, unlessAborted } from "../../base/deadline.js";
import { PyroError } from "../../base/error.js";
import { log } from "../../base/log.js";
import type { GuestStats } from "../../channel/index.js";
import { connectVm } from "./connect.js";
import { hostTime, leftMs } from "./expiry.js";
import type { Vm } from "./record.js";
import { knowVm, type Known } from "./store.js";

export interface VmStats {
  vmId: string;
  state: Vm["state"];
  executionMode: Vm["executionMode"];
  /** Until its time to live is over, milliseconds. */
  remainingMs: number;
  /** Since it was started, milliseconds; of one that runs. */
  uptimeMs?: number;
  /** What the host spends on it; of one that runs as a guest. */
  host?: {
    /** Processor time since it was started, milliseconds. */
    cpuMs: number;
    /** Memory of its own and its share of what it has in common with others, bytes. */
    memoryBytes: number;
    /** Blocks of the host's disk that its scratch disk takes up, bytes. */
    diskBytes: number;
  };
  /** What the guest says of itself; of one that runs as a guest and answers. */
  guest?: Omit<GuestStats, "uptimeMs">;
}

/** A guest that does not answer by then is one that has nothing to say. */
const guestMs = 5000;

/** Throws NOT_FOUND, CANCELLED. */
export async function statsVm(vmId: string, { signal }: { signal?: AbortSignal } = {}): Promise<VmStats> {
  checkSignal(signal);
  const known = await knowVm(vmId);
  const { record, found } = known;
  try {
    const usage = record.executionMode === "guest" && found !== undefined ? await unlessAborted(found.usage(), signal) : undefined;
    const { uptimeMs, ...host } = usage ?? {};
    const guest = usage === undefined ? undefined : await askGuest(known, signal);
    checkSignal(signal);
    return {
      vmId,
      state: record.state,
      executionMode: record.executionMode,
      remainingMs: Math.max(0, leftMs(record, await hostTime())),
      ...(uptimeMs !== undefined && { uptimeMs }),
      ...(usage !== undefined && { host: host as NonNullable<VmStats["host"]> }),
      ...(guest !== undefined && { guest }),
    };
  } finally {
    found?.release();
  }
}

async function askGuest(known: Known, signal: AbortSignal | undefined): Promise<VmStats["guest"]> {
  const enough = followFor(signal, guestMs);
  try {
    const vm = await connectVm(known, { signal: enough.signal });
    try {
      const { uptimeMs: _uptime, ...stats } = await vm.channel.stats({ signal: enough.signal });
      return stats;
    } finally {
      vm.channel.close();
    }
  } catch (error) {
    log("a guest does not tell how it is", { vmId: known.record.vmId, why: error instanceof PyroError ? error.message : String(error) });
    return undefined;
  } finally {
    enough.abort();
  }
}
