/** Whether the host has room for a VM, asked before it is started: an honest error instead of something that is killed in the middle. */
import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
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
export async function checkHost({ memMib, temporaryDirectory, place }: Pick<VmSpec, "memMib" | "temporaryDirectory" | "place">): Promise<void> {
  const directory = place?.directory ?? temporaryDirectory;
  checkMemory(memMib, availableMemoryMib());
  checkDisk(directory, await freeDiskMib(directory));
}

/** Throws DISK_FULL. */
export function checkDisk(directory: string, freeMib: number | undefined): void {
  if (freeMib === undefined || freeMib >= leastDiskMib) return;
  throw new PyroError("DISK_FULL", `The disk of ${directory} has ${freeMib} MiB free; a VM needs at least ${leastDiskMib} for what it writes.`, { hint: "Free some space: `pyro env prune` removes what is no longer used." });
}

export interface AvailableMemory {
  mib: number;
  /** Who leaves no more: the host, or a control group by its path. */
  of: string;
}

/** Throws HOST_MISSING that says what is there, what is needed, and whose limit it is. */
export function checkMemory(memMib: number, available: AvailableMemory | undefined): void {
  if (available === undefined || available.mib >= memMib + overheadMib) return;
  throw new PyroError("HOST_MISSING", `${available.of} has ${available.mib} MiB of memory available; a VM of ${memMib} MiB may need ${memMib + overheadMib}.`, { hint: "Give a smaller --mem-mib (mem_mib), or end something else." });
}

/**
 * What the kernel estimates can be had without swapping, and what this process's control group and those above leave of it. Undefined where /proc does not tell.
 * Read synchronously: these files cost microseconds, a thread for each of them more.
 */
export function availableMemoryMib(root = ""): AvailableMemory | undefined {
  const hostMib = Number(/^MemAvailable:\s+([0-9]+) kB/m.exec(read(`${root}/proc/meminfo`) ?? "")?.[1]) / 1024;
  if (!Number.isFinite(hostMib)) return undefined;
  let least: AvailableMemory = { mib: hostMib, of: "The host" };
  for (const { name, path, most, current, cache } of groups(root)) {
    const leaves = groupLeavesMib(path, most, current, cache);
    if (leaves !== undefined && leaves < least.mib) least = { mib: leaves, of: `The control group ${name}` };
  }
  return { ...least, mib: Math.floor(least.mib) };
}

interface Group {
  name: string;
  path: string;
  /** Files of its limit and its use, and the line of memory.stat that counts what is given back before anything is killed. */
  most: string;
  current: string;
  cache: string;
}

/** Our own group and all above it, of both versions: a host may have both. */
function groups(root: string): Group[] {
  const found: Group[] = [];
  for (const line of (read(`${root}/proc/self/cgroup`) ?? "").split("\n")) {
    const [, controllers, own] = /^[0-9]+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (own === undefined) continue;
    const v1 = controllers!.split(",").includes("memory");
    if (controllers !== "" && !v1) continue;
    const files = v1
      ? { mount: `${root}/sys/fs/cgroup/memory`, most: "memory.limit_in_bytes", current: "memory.usage_in_bytes", cache: "total_inactive_file" }
      : { mount: `${root}/sys/fs/cgroup`, most: "memory.max", current: "memory.current", cache: "inactive_file" };
    const { mount, ...names } = files;
    // Within a container the path may be the host's, and what is mounted its own group alone.
    for (let group = own.replace(/\/$/, ""); ; group = group.slice(0, group.lastIndexOf("/"))) {
      found.push({ name: group === "" ? "of this container" : group, path: `${mount}${group}`, ...names });
      if (group === "") break;
    }
  }
  return found;
}

/** Undefined where there is no limit. */
function groupLeavesMib(path: string, mostFile: string, currentFile: string, cacheName: string): number | undefined {
  const most = number(read(`${path}/${mostFile}`));
  if (most === undefined || most > Number.MAX_SAFE_INTEGER) return undefined; // v1 has a number near 2^63 for none
  const current = number(read(`${path}/${currentFile}`));
  if (current === undefined) return undefined;
  const cache = number(new RegExp(`^${cacheName} ([0-9]+)$`, "m").exec(read(`${path}/memory.stat`) ?? "")?.[1]) ?? 0;
  return Math.max(0, most - current + cache) / 1048576;
}

function number(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]+\n?$/.test(text) ? Number(text) : undefined;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined; // not there, or not for us
  }
}

/** Undefined where it can't be known: some file systems count nothing. */
export async function freeDiskMib(directory: string): Promise<number | undefined> {
  const found = await statfs(directory).catch(() => undefined);
  return found === undefined || found.blocks === 0 ? undefined : Math.floor((found.bavail * found.bsize) / 1048576);
}
