/**
 * Removes what is no longer used: environments that no name stands for any more, damaged ones, kernels that no environment
 * needs, and what dead processes left behind. A whole environment with a name stays, and so does one that a VM runs from.
 */
import { access, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { takeLock, tryLock } from "../base/lock.js";
import { checkInstalled, installedNames, lockFileOf } from "./store.js";
import { makePrivate, places } from "./places.js";
import { diskUsage, makeTemporary, namesIn, removeTree, sweepTemporary } from "./temporary.js";

export interface PruneResult {
  /** What was removed: `environment sha256:…`, `kernel …`, `temporary files`. */
  removed: string[];
  reclaimedBytes: number;
}

export interface PruneOptions {
  signal?: AbortSignal;
  /** Told when another process has to be waited for; `what` is a clause: "another process is …". */
  onWait?: (what: string) => void;
}

/** Waits for pulls that are going on, at most ten minutes; TIMEOUT after that. Throws CANCELLED; what was removed until then is gone. */
export async function pruneEnvironments(options: PruneOptions = {}): Promise<PruneResult> {
  const { signal } = options;
  checkSignal(signal);
  await makePrivate(places.environments());
  const lock = await takeStoreLock(options);
  try {
    const removed: string[] = [];
    const sweptBytes = await sweepTemporary(signal);
    if (sweptBytes > 0) removed.push("temporary files");
    const before = await storeUsage();
    const keptKernels = await pruneStore(removed, signal);
    await pruneKernels(keptKernels, removed, signal);
    return { removed, reclaimedBytes: sweptBytes + Math.max(0, before - (await storeUsage())) };
  } finally {
    await lock.release();
  }
}

async function takeStoreLock({ signal, onWait }: PruneOptions) {
  const minutes = 10;
  const timeout = AbortSignal.timeout(minutes * 60_000);
  try {
    return await takeLock(places.storeLock(), { signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]), onWait: () => onWait?.("another process is pulling an environment") });
  } catch (error) {
    if (!timeout.aborted || signal?.aborted) throw error;
    throw new PyroError("TIMEOUT", `Another process was still pulling an environment after ${minutes} minutes.`, { hint: "Prune again when it is done.", cause: error });
  }
}

/** Removes names and environments; returns the ids of the kernels that those which stay need. */
async function pruneStore(removed: string[], signal: AbortSignal | undefined): Promise<Set<string>> {
  const named = new Set<string>();
  const records = new Map((await installedNames()).map(({ file, digest }) => [file, digest]));
  for (const file of await namesIn(places.names())) {
    checkSignal(signal);
    const digest = records.get(file);
    if (digest !== undefined && (await isWhole(digest))) named.add(digest);
    else if (digest === undefined || !(await inUse(digest))) await rm(join(places.names(), file), { recursive: true, force: true });
  }
  const kernels = new Set<string>();
  for (const digest of await namesIn(places.environments())) {
    if (!/^[0-9a-f]{64}$/.test(digest)) continue;
    checkSignal(signal);
    if (named.has(digest) || !(await removeEnvironment(digest, removed))) {
      const kernel = await checkInstalled(digest, "stamps").then((each) => each.manifest.kernel.id, () => undefined);
      if (kernel !== undefined) kernels.add(kernel);
    }
  }
  return kernels;
}

/** False if a VM runs from it. */
async function removeEnvironment(digest: string, removed: string[]): Promise<boolean> {
  const directory = places.environment(digest);
  const lock = await tryLock(lockFileOf(directory));
  if (lock === undefined) return false;
  try {
    await removeAside(directory);
    removed.push(`environment sha256:${digest}`);
    return true;
  } finally {
    await lock.release();
  }
}

async function pruneKernels(kept: ReadonlySet<string>, removed: string[], signal: AbortSignal | undefined): Promise<void> {
  for (const id of await namesIn(places.kernels())) {
    if (id === "lock" || kept.has(id)) continue;
    checkSignal(signal);
    await removeAside(places.kernel(id));
    removed.push(`kernel ${id}`);
  }
}

/** Out of the way first, then file by file: an interrupted removal is a temporary directory, never half an environment. */
async function removeAside(path: string): Promise<void> {
  const temporary = await makeTemporary();
  try {
    await rename(path, join(temporary.path, "removed"));
    await removeTree(join(temporary.path, "removed"));
  } finally {
    await temporary.remove();
  }
}

async function isWhole(digest: string): Promise<boolean> {
  return checkInstalled(digest, "stamps").then(() => true, () => false);
}

async function inUse(digest: string): Promise<boolean> {
  const file = lockFileOf(places.environment(digest));
  if (!(await access(file).then(() => true, () => false))) return false; // asking for the lock would make it
  const lock = await tryLock(file);
  await lock?.release();
  return lock === undefined;
}

/** Environments share a kernel through hard links: each counts once. */
async function storeUsage(): Promise<number> {
  return diskUsage([places.environments(), places.kernels()]);
}
