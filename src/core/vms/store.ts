/** Where VMs with a record are, and what is true of them: the record says what was done, the keeper what runs. */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { makeDirectory } from "../../base/directory.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { takeLock, tryLock, type Lock } from "../../base/lock.js";
import { nearest } from "../../base/nearest.js";
import { stateDirectory } from "../../base/paths.js";
import { findVm, readExit, type FoundVm } from "../../vmm/index.js";
import { hostTime, leftMs, onThisBoot, type HostTime } from "./expiry.js";
import { wasHostRun } from "./host-run.js";
import { next, type VmEvent } from "./lifecycle.js";
import { readVmRecord, vmIdPattern, type VmRecord } from "./record.js";

const places = {
  vms: () => join(stateDirectory(), "vms"),
  vm: (vmId: string) => join(places.vms(), vmId),
  /** Beside the directory, as it goes with it. */
  locks: () => join(stateDirectory(), "vm-locks"),
  lock: (vmId: string) => join(places.locks(), vmId),
};
/** How often a VM is looked at that changes while it is looked at. */
const maxLooks = 8;

/** A VM as it is now. */
export interface Known {
  directory: string;
  record: VmRecord;
  /** Whether this was found out, and the file still says something else. */
  isNews: boolean;
  /** There if it runs, as a guest or, with its one command, on the host; whoever asked lets go of it, or ends it. */
  found?: FoundVm;
}

export function vmDirectory(vmId: string): string {
  return places.vm(vmId);
}

export async function listVmIds(): Promise<string[]> {
  return idsIn(places.vms());
}

/** Those of VMs that may be gone, too. */
export async function listLockIds(): Promise<string[]> {
  return idsIn(places.locks());
}

async function idsIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => vmIdPattern.test(name)).sort();
  } catch (error) {
    if (systemCode(error) === "ENOENT") return [];
    throw toPyroError(error);
  }
}

/**
 * What is true of a VM. Throws NOT_FOUND with the nearest ids, also for one whose time is over or that ran its one command: it is gone, although
 * `reap` may not have come by yet.
 */
export async function knowVm(vmId: string): Promise<Known> {
  const known = vmIdPattern.test(vmId) ? await lookAt(vmId) : undefined;
  if (known === undefined || known === "gone") throw await notFound(vmId);
  return known;
}

/** Undefined if there is no record; `gone` if there is one of a VM that is to be cleared away. Throws UNSUPPORTED for a newer pyro's. */
export async function lookAt(vmId: string): Promise<Known | "gone" | undefined> {
  const directory = places.vm(vmId);
  for (let look = 1; ; look++) {
    const written = await readVmRecord(directory);
    if (written === undefined || written.vmId !== vmId) return undefined;
    const now = await hostTime();
    if (leftMs(written, now) <= 0) return "gone";
    const record = onThisBoot(written, now);
    const isNews = record !== written;
    if (record.state !== "started") return { directory, record, isNews };
    const found = await findVm(directory);
    if (found !== undefined) return { directory, record, isNews, found };
    if (record.executionMode === "host_compat") return (await wasHostRun(directory)) ? "gone" : { directory, record, isNews };
    const { event, why } = await endOf(written, directory, now);
    // It may have been stopped, started or removed between the looks at its record and at its place: then the record has changed.
    if (look < maxLooks && JSON.stringify(await readVmRecord(directory)) !== JSON.stringify(written)) continue;
    const state = next(vmId, "started", event);
    if (state === "gone") return "gone";
    return { directory, record: { ...record, state, ...(state === "failed" && { lastError: why }) }, isNews: true };
  }
}

/** Runs `work` while nobody else changes this VM; calls `onWait` if somebody does. Throws NOT_FOUND, CANCELLED. */
export async function withVm<T>(vmId: string, signal: AbortSignal | undefined, work: (known: Known) => Promise<T>, onWait?: () => void): Promise<T> {
  if (!vmIdPattern.test(vmId) || !(await isThere(places.vm(vmId)))) throw await notFound(vmId);
  const lock = await takeLock(places.lock(vmId), { ...(signal && { signal }), ...(onWait && { onWait }) });
  try {
    const known = await knowVm(vmId);
    try {
      return await work(known);
    } finally {
      known.found?.release();
    }
  } finally {
    // Nobody holds what nobody can ask for any more; those that wait see that it is another file now.
    if (!(await isThere(places.vm(vmId)))) await rm(places.lock(vmId), { force: true });
    await lock.release();
  }
}

/** For a VM that is being made or cleared away: the lock if nobody has it. */
export async function tryVmLock(vmId: string): Promise<Lock | undefined> {
  return tryLock(places.lock(vmId));
}

/** Makes the directories that VMs are in. */
export async function makeVmsDirectory(): Promise<string> {
  await makeDirectory(places.locks());
  return makeDirectory(places.vms());
}

/** The record first: what is left of an interrupted removal is known for what it is. The caller holds the lock. */
export async function removeVm(vmId: string): Promise<void> {
  await rm(join(places.vm(vmId), "vm.json"), { recursive: true, force: true }).catch((error: unknown) => {
    if (systemCode(error) !== "ENOTDIR") throw error; // no directory, and so no VM
  });
  await rm(places.vm(vmId), { recursive: true, force: true });
  await rm(places.lock(vmId), { force: true });
}

/** Removes the lock of a VM that is not there, unless somebody has it. */
export async function removeStrayLock(vmId: string): Promise<void> {
  if (await isThere(places.vm(vmId))) return;
  const lock = await tryVmLock(vmId);
  if (lock === undefined) return;
  try {
    if (!(await isThere(places.vm(vmId)))) await rm(places.lock(vmId), { force: true });
  } finally {
    await lock.release();
  }
}

async function endOf(record: VmRecord, directory: string, now: HostTime): Promise<{ event: VmEvent; why: string }> {
  if (record.hostBootId !== now.bootId) return { event: "died", why: "the host was booted again" };
  const exit = await readExit(directory);
  switch (exit?.cause) {
    case "ttl":
      return { event: "expired", why: "its time to live is over" };
    case "owner":
      return { event: "ownerGone", why: "its one command is over" };
    case "asked": // by a stop that was broken off before it could say so
      return { event: "poweredOff", why: "it was stopped" };
    case "maker": // between the record and the release: it was ready, and nobody has used it
      return { event: "poweredOff", why: "the process that started it ended" };
    case "signal":
      return { event: "died", why: "its keeper was told to end" };
    case "program":
      return exit.status === 0 ? { event: "poweredOff", why: "the guest powered off" } : { event: "died", why: `its monitor ended with status ${exit.status}` };
    case undefined:
      return { event: "died", why: "its keeper was killed" };
  }
}

export async function notFound(vmId: string): Promise<PyroError> {
  if (typeof vmId !== "string") return new PyroError("INVALID_ARGUMENT", "A VM's id is a string."); // as it may be in JavaScript
  const near = nearest(vmId, (await listVmIds().catch(() => [])).filter((each) => each !== vmId));
  return new PyroError("NOT_FOUND", `There is no VM ${JSON.stringify(vmId.slice(0, 100))}; if there was one, its time to live is over, it ran its one command, or it was deleted.`, {
    hint: near.length > 0 ? `Did you mean ${near.join(" or ")}?` : "`pyro vm list` shows those that are there.",
  });
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: unknown) => {
      if (systemCode(error) === "ENOENT") return false;
      throw toPyroError(error);
    },
  );
}
