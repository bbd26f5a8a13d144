/** How the guest is, in its own words. */
import { u8, type Field, type Fields, type TagName } from "./message.js";

export interface GuestStats {
  uptimeMs: number;
  memoryTotalBytes: number;
  /** What commands could still get without swapping. */
  memoryAvailableBytes: number;
  /** Of the root file system: what can be written in all, and what still can. */
  diskTotalBytes: number;
  diskFreeBytes: number;
  /** Processor time of all commands so far. */
  cpuTimeMs: number;
  /** Processes and threads of all commands. */
  processes: number;
}

export const statsFields: readonly Field[] = [["KIND", u8(22)]];
export const statsResult: readonly TagName[] = ["DURATION", "MEMORY_TOTAL", "MEMORY_AVAILABLE", "DISK_TOTAL", "DISK_FREE", "CPU_TIME", "PROCESSES"];

export function statsOf(fields: Fields): GuestStats {
  const number = (name: TagName) => Number(fields.get(name)!.readBigUInt64LE());
  return {
    uptimeMs: number("DURATION") / 1e6,
    memoryTotalBytes: number("MEMORY_TOTAL"),
    memoryAvailableBytes: number("MEMORY_AVAILABLE"),
    diskTotalBytes: number("DISK_TOTAL"),
    diskFreeBytes: number("DISK_FREE"),
    cpuTimeMs: number("CPU_TIME") / 1e6,
    processes: fields.get("PROCESSES")!.readUInt32LE(),
  };
}
