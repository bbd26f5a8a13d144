/**
 * How much time a VM has left. Within a boot of the host it is counted on a clock that nobody can set. Over a boot only the wall clock leads; what it says
 * is taken once, at most a whole time to live, and counted on from there: a clock that was wrong neither ends a VM later nor keeps it for ever.
 */
import { hostBootId, hostUptimeMs } from "../../vmm/index.js";
import type { VmRecord } from "./record.js";

export interface HostTime {
  bootId: string;
  /** Since that boot. */
  uptimeMs: number;
  /** Since 1970, as somebody set it. */
  wallMs: number;
}

type Timed = Pick<VmRecord, "ttlSeconds" | "expiresAt" | "hostBootId" | "expiresAtUptimeMs">;

export async function hostTime(): Promise<HostTime> {
  const [bootId, uptimeMs] = await Promise.all([hostBootId(), hostUptimeMs()]);
  return { bootId, uptimeMs, wallMs: Date.now() };
}

/** Milliseconds; none are left at 0 and below. */
export function leftMs(record: Timed, now: HostTime): number {
  if (isOfThisBoot(record, now)) return record.expiresAtUptimeMs - now.uptimeMs;
  return Math.min(Date.parse(record.expiresAt) - now.wallMs, record.ttlSeconds * 1000);
}

/** The record with its end on this boot's clock; the same object where it is already. */
export function onThisBoot<T extends Timed>(record: T, now: HostTime): T {
  if (isOfThisBoot(record, now)) return record;
  return { ...record, hostBootId: now.bootId, expiresAtUptimeMs: now.uptimeMs + Math.max(0, leftMs(record, now)) };
}

/** With more left than it ever had, the clock began anew, as a container's may. */
function isOfThisBoot(record: Timed, now: HostTime): boolean {
  return record.hostBootId === now.bootId && record.expiresAtUptimeMs - now.uptimeMs <= record.ttlSeconds * 1000;
}
