/**
 * Directories for work in progress. Each has a lock beside it that its maker holds for as long as it lives. With the lock goes
 * the directory, also after a SIGKILL of its maker; what is left after a crash of the host is known for certain by the lock
 * that nobody holds, and swept by whoever comes next.
 */
import { randomBytes } from "node:crypto";
import { lstat, mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { findProgram, runChild } from "../base/child.js";
import { checkSignal } from "../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { log } from "../base/log.js";
import { takeLock, tryLock, type Lock } from "../base/lock.js";
import { makePrivate, places } from "./places.js";

export interface TemporaryDirectory {
  path: string;
  /** Removes it with all that is in it. */
  remove(): Promise<void>;
}

/** Makes a directory of mode 0700 on the cache's file system. */
export async function makeTemporary(): Promise<TemporaryDirectory> {
  const path = join(await makePrivate(places.temporary()), randomBytes(8).toString("hex"));
  const lock = await lockFor(path, `${path}.lock`); // before there is a directory: a sweep then never sees one without its lock
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    await lock.release();
    throw toPyroError(error);
  }
  return {
    path,
    async remove() {
      try {
        await removeTree(path); // here as well, since here it can be said why it fails
      } finally {
        await lock.release();
      }
    },
  };
}

/**
 * For work in progress that has to be elsewhere: from now on the tree `path`, which need not be there yet, goes with this process, however that ends, or with
 * `release`. A crash of the host it survives.
 */
export async function removeAtLast(path: string): Promise<Lock> {
  return lockFor(path, join(await makePrivate(places.temporary()), `${randomBytes(8).toString("hex")}.lock`));
}

async function lockFor(path: string, file: string): Promise<Lock> {
  return takeLock(file, { last: [await findProgram("sh"), "-c", removal, "sh", path, file] });
}

/** As `removeTree` does it, and then the lock file. Fails for as long as somebody that is being ended puts files into the directory. Where all went well there is nothing, and an `rm` that knows no such flag does no harm. */
const removal = `[ ! -e "$1" ] || rm -rf --one-file-system -- "$1" || unshare --map-root-user --map-auto -- rm -rf --one-file-system -- "$1" && rm -f -- "$2"`;

/** Removes what dead processes left. Returns how many bytes of disk that were. */
export async function sweepTemporary(signal?: AbortSignal): Promise<number> {
  let reclaimedBytes = 0;
  const ids = (await namesIn(places.temporary())).flatMap((name) => /^([0-9a-f]{16})(?:\.lock)?$/.exec(name)?.[1] ?? []);
  for (const id of new Set(ids)) { // a lock can be left without its directory too
    checkSignal(signal);
    const path = join(places.temporary(), id);
    const lock = await tryLock(`${path}.lock`);
    if (lock === undefined) continue; // its maker lives
    try {
      const bytes = await diskUsage([path]);
      await removeTree(path);
      await rm(`${path}.lock`, { force: true });
      reclaimedBytes += bytes;
      log("swept", { path, bytes });
    } finally {
      await lock.release();
    }
  }
  return reclaimedBytes;
}

/** Removes a tree that may hold files of other (subordinate) users: those that this user may map can also be removed. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    const code = systemCode(error);
    if (process.getuid?.() === 0 || (code !== "EACCES" && code !== "EPERM" && code !== "ENOTEMPTY")) throw error;
    const { code: status, stderr } = await runChild("unshare", ["--map-root-user", "--map-auto", "--", "rm", "-rf", "--one-file-system", "--", path], { timeoutMs: 120_000 });
    if (status !== 0) throw new PyroError("DENIED", `${path} could not be removed: ${harmlessLine(stderr.trim(), 800)}`, { hint: `sudo rm -rf --one-file-system ${path}`, cause: error });
  }
}

/** Bytes of disk that these trees take up together, as far as they can be looked at. A file with several names counts once. */
export async function diskUsage(paths: readonly string[]): Promise<number> {
  const seen = new Set<number>();
  const measure = async (path: string): Promise<number> => {
    const stat = await lstat(path).catch(() => undefined);
    if (stat === undefined || (stat.nlink > 1 && !stat.isDirectory() && seen.has(stat.ino))) return 0;
    seen.add(stat.ino);
    let total = stat.blocks * 512;
    if (stat.isDirectory()) for (const name of await namesIn(path)) total += await measure(join(path, name));
    return total;
  };
  let total = 0;
  for (const path of paths) total += await measure(path);
  return total;
}

/** The names in a directory, sorted; none if it is not there or not readable. */
export async function namesIn(path: string): Promise<string[]> {
  return (await readdir(path).catch(() => [])).sort();
}
