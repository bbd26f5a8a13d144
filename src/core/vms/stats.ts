/** What a VM uses, as the host sees it. */
import { hostUptimeMs, type Vm } from "./record.js";
import { knowVm } from "./store.js";

export interface VmStats {
  vmId: string;
  state: Vm["state"];
  executionMode: Vm["executionMode"];
  /** Until its time to live is over, milliseconds. */
  remainingMs: number;
  /** Since it was started, milliseconds; of one that runs. */
  uptimeMs?: number;
  /** What the host spends on it; of one that runs as a guest. What the guest itself says of its memory and processes would stand beside it. */
  host?: {
    /** Processor time since it was started, milliseconds. */
    cpuMs: number;
    /** Memory of its own and its share of what it has in common with others, bytes. */
    memoryBytes: number;
    /** Blocks of the host's disk that its scratch disk takes up, bytes. */
    diskBytes: number;
  };
}

/** Throws NOT_FOUND. */
export async function statsVm(vmId: string): Promise<VmStats> {
  const { record, found } = await knowVm(vmId);
  try {
    const usage = record.executionMode === "guest" ? await found?.usage() : undefined;
    const { uptimeMs, ...host } = usage ?? {};
    return {
      vmId,
      state: record.state,
      executionMode: record.executionMode,
      remainingMs: Math.max(0, record.expiresAtUptimeMs - (await hostUptimeMs())),
      ...(uptimeMs !== undefined && { uptimeMs }),
      ...(usage !== undefined && { host: host as NonNullable<VmStats["host"]> }),
    };
  } finally {
    found?.release();
  }
}
