/**
 * Removes what is no longer used: environments that no name stands for any more, damaged ones, kernels that no environment
 * needs, content of images that none of them is made of, and what dead processes left behind. A whole environment with a name stays unless it is
 * asked for by age, size or name; one that a VM runs from, or will when it is started again, stays always.
 */
import { access, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { takeLock, tryLock } from "../base/lock.js";
import type { ManifestImage } from "./manifest.js";
import { checkInstalled, installedNames, lockFileOf } from "./store.js";
import { makePrivate, places } from "./places.js";
import { builtDigest, contentOfBuilt } from "./sources/built.js";
import { findWanted } from "./wanted.js";
import { diskUsage, makeTemporary, namesIn, removeTree, sweepTemporary } from "./temporary.js";

export interface PruneResult {
  /** What was removed: `environment sha256:…`, `kernel …`, `content of images`, `temporary files`. */
  removed: string[];
  reclaimedBytes: number;
}

export interface PruneOptions {
  signal?: AbortSignal;
  /** Also environments that were pulled longer ago than this, seconds. */
  olderThanSeconds?: number;
  /** Also environments, those pulled longest ago first, until no more is left than this, MiB. */
  maxMib?: number;
  /** Told when another process has to be waited for; `what` is a clause: "another process is …". */
  onWait?: (what: string) => void;
  /** Digests (`sha256:…`) of environments that somebody needs who holds no lock on them, and who that is. Asked when no pull goes on any more. */
  neededBy?: () => Promise<ReadonlyMap<string, string>>;
}

/** By 64 hexadecimal digits. */
type Needed = ReadonlyMap<string, string>;

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
    const needed = await neededOf(options);
    await pruneAll(needed, removed, signal); // which may be enough
    await pruneOld(options, needed, removed);
    return { removed: [...new Set(removed)], reclaimedBytes: sweptBytes + Math.max(0, before - (await storeUsage())) };
  } finally {
    await lock.release();
  }
}

/**
 * Takes the name away, and what it stood for unless another name stands for it too. Throws NOT_FOUND, INVALID_STATE while a VM runs from it or needs it, and what
 * `pruneEnvironments` throws.
 */
export async function removeEnvironment(given: string, options: Omit<PruneOptions, "olderThanSeconds" | "maxMib"> = {}): Promise<PruneResult> {
  const { name } = await findWanted(given);
  const lock = await takeStoreLock(options);
  try {
    const records = await installedNames();
    const record = records.find((each) => each.name === name);
    if (record?.digest === undefined) throw new PyroError("NOT_FOUND", `The environment ${name} is not installed.`, { hint: "`pyro env list` shows those that are." });
    const others = records.filter((each) => each.digest === record.digest && each !== record);
    const needed = await neededOf(options);
    if (others.length === 0 && needed.has(record.digest)) throw new PyroError("INVALID_STATE", `The VM ${needed.get(record.digest)} is of the environment ${name}.`, { hint: `Delete it first: pyro vm delete ${needed.get(record.digest)}` });
    if (others.length === 0 && (await inUse(record.digest))) throw new PyroError("INVALID_STATE", `A VM runs from the environment ${name}.`, { hint: "`pyro vm list` shows it; delete it first." });
    const before = await storeUsage();
    const removed: string[] = [];
    await rm(join(places.names(), record.file));
    await pruneAll(needed, removed, options.signal);
    return { removed, reclaimedBytes: Math.max(0, before - (await storeUsage())) };
  } finally {
    await lock.release();
  }
}

async function neededOf({ neededBy }: PruneOptions): Promise<Needed> {
  return new Map([...((await neededBy?.()) ?? [])].map(([digest, who]) => [digest.slice("sha256:".length), who]));
}

async function pruneAll(needed: Needed, removed: string[], signal: AbortSignal | undefined): Promise<void> {
  const { kernels, blobs } = await pruneStore(needed, removed, signal);
  await pruneKernels(kernels, removed, signal);
  await pruneBlobs(blobs, removed, signal);
}

/** Removes environments that are too old, or too many; never those that were built here. */
async function pruneOld({ olderThanSeconds, maxMib, signal }: PruneOptions, needed: Needed, removed: string[]): Promise<void> {
  if (olderThanSeconds === undefined && maxMib === undefined) return;
  const found: { file: string; pulledMs: number }[] = [];
  for (const { file, digest, source } of await installedNames()) {
    if (digest === undefined || builtDigest(source) !== undefined) continue; // what was built can't be had again from anywhere
    checkSignal(signal);
    const there = await stat(join(places.names(), file)).catch(() => undefined);
    if (there !== undefined && !needed.has(digest) && !(await inUse(digest))) found.push({ file, pulledMs: there.mtimeMs });
  }
  for (const { file, pulledMs } of found.sort((a, b) => a.pulledMs - b.pulledMs)) {
    const isOld = olderThanSeconds !== undefined && Date.now() - pulledMs > olderThanSeconds * 1000;
    if (!isOld && (maxMib === undefined || (await storeUsage()) <= maxMib * 1048576)) continue;
    await rm(join(places.names(), file), { force: true });
    // What that brings is known when it is done: environments share kernels, layers, and themselves where they have two names.
    await pruneAll(needed, removed, signal);
  }
}

function blobsOf(image: ManifestImage): string[] {
  return [image.manifestDigest, image.configDigest, ...image.layers.map(({ digest }) => digest)].map((digest) => digest.slice("sha256:".length));
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

/** Removes names and environments; returns the ids of the kernels, and the blobs, that those which stay need. */
async function pruneStore(needed: Needed, removed: string[], signal: AbortSignal | undefined): Promise<{ kernels: Set<string>; blobs: Set<string> }> {
  const named = new Set<string>();
  const kernels = new Set<string>();
  const blobs = new Set<string>();
  const records = new Map((await installedNames()).map((record) => [record.file, record]));
  for (const file of await namesIn(places.names())) {
    checkSignal(signal);
    const { digest, source } = records.get(file) ?? {};
    if (digest !== undefined && (await isWhole(digest))) {
      named.add(digest);
      continue;
    }
    // What was built and is damaged can be made again of what is kept, and of nothing else.
    const built = builtDigest(source);
    const content = built === undefined ? undefined : await contentOfBuilt(built);
    if (content !== undefined) for (const each of content) blobs.add(each.slice("sha256:".length));
    else if (digest === undefined || !(needed.has(digest) || (await inUse(digest)))) await rm(join(places.names(), file), { recursive: true, force: true });
  }
  for (const digest of await namesIn(places.environments())) {
    if (!/^[0-9a-f]{64}$/.test(digest)) continue;
    checkSignal(signal);
    if (named.has(digest) || needed.has(digest) || !(await removeUnused(digest, removed))) {
      const manifest = await checkInstalled(digest, "stamps").then((each) => each.manifest, () => undefined);
      if (manifest === undefined) continue;
      kernels.add(manifest.kernel.id);
      if (manifest.image !== undefined) for (const blob of blobsOf(manifest.image)) blobs.add(blob);
    }
  }
  return { kernels, blobs };
}

/** False if a VM runs from it. */
async function removeUnused(digest: string, removed: string[]): Promise<boolean> {
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

/** What was fetched in part is as good as what nobody needs: whoever wanted it has gone, as the store's lock is ours. */
async function pruneBlobs(kept: ReadonlySet<string>, removed: string[], signal: AbortSignal | undefined): Promise<void> {
  let found = false;
  for (const [directory, names] of [[places.blobs(), await namesIn(places.blobs())], [places.partialBlobs(), await namesIn(places.partialBlobs())]] as const) {
    for (const name of names) {
      if (directory === places.blobs() && kept.has(name)) continue;
      checkSignal(signal);
      await rm(join(directory, name), { recursive: true, force: true });
      found = true;
    }
  }
  if (found) removed.push("content of images");
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
  return diskUsage([places.environments(), places.kernels(), places.blobs(), places.partialBlobs()]);
}
