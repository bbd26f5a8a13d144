/** Whether the host has room for a VM, asked before it is started: an honest error instead of something that is killed in the middle. */
import { readFile, statfs } from "node:fs/promises";
import { PyroError } from "../base/error.js";
import type { VmSpec } from "../vmm/index.js";

/** What QEMU takes besides the guest's memory. */
const overheadMib = 64;
/** A VM with less than this for what it writes is of no use. */
const leastDiskMib = 32;

/**
 * Throws HOST_MISSING if the guest could not have all of its memory now, DISK_FULL if there is no room for what it writes. Memory is given
 * as it is touched, so many more VMs fit than their sizes add up to; each is only asked for itself.
 */
export async function checkHost({ memMib, temporaryDirectory, place }: VmSpec): Promise<void> {
  const [availableMib, freeMib] = await Promise.all([availableMemoryMib(), freeDiskMib(place?.directory ?? temporaryDirectory)]);
  if (availableMib !== undefined && availableMib < memMib + overheadMib) {
    throw new PyroError("HOST_MISSING", `The host has ${availableMib} MiB of memory available; a VM of ${memMib} MiB may need ${memMib + overheadMib}.`, { hint: "Give a smaller --mem-mib (mem_mib), or end something else." });
  }
  if (freeMib !== undefined && freeMib < leastDiskMib) {
    throw new PyroError("DISK_FULL", `The disk of ${place?.directory ?? temporaryDirectory} has ${freeMib} MiB free; a VM needs at least ${leastDiskMib} for what it writes.`, { hint: "Free some space: `pyro env prune` removes what is no longer used." });
  }
}

/** What the kernel estimates can be had without swapping, and what this process's control group leaves of it. */
async function availableMemoryMib(): Promise<number | undefined> {
  const host = Number(/^MemAvailable:\s+([0-9]+) kB/m.exec(await readFile("/proc/meminfo", "latin1").catch(() => ""))?.[1]) / 1024;
  if (!Number.isFinite(host)) return undefined;
  return Math.floor(Math.min(host, await groupLeavesMib()));
}

/** Of cgroup v2: the tightest of our group's and its parents' limits; Infinity where there is none. */
async function groupLeavesMib(): Promise<number> {
  const own = /^0::(\/.*)$/m.exec(await readFile("/proc/self/cgroup", "latin1").catch(() => ""))?.[1];
  let least = Infinity;
  for (let group = own ?? ""; group !== "" && group !== "/"; group = group.slice(0, group.lastIndexOf("/"))) {
    const read = async (name: string) => Number(await readFile(`/sys/fs/cgroup${group}/${name}`, "latin1").catch(() => "max"));
    const [most, current, stat] = [await read("memory.max"), await read("memory.current"), await readFile(`/sys/fs/cgroup${group}/memory.stat`, "latin1").catch(() => "")];
    if (!Number.isFinite(most) || !Number.isFinite(current)) continue;
    const cache = Number(/^inactive_file ([0-9]+)$/m.exec(stat)?.[1] ?? 0); // given back before anything is killed
    least = Math.min(least, Math.max(0, most - current + cache) / 1048576);
  }
  return least;
}

async function freeDiskMib(directory: string): Promise<number | undefined> {
  const found = await statfs(directory).catch(() => undefined);
  return found === undefined ? undefined : Math.floor((found.bavail * found.bsize) / 1048576);
}
