/** The empty disk that every VM's scratch disk begins as. */
import { chmod, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory, syncFile, writeAtomic } from "../base/atomic.js";
import { runChild } from "../base/child.js";
import { checkSignal } from "../base/deadline.js";
import { PyroError, toPyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { takeLock } from "../base/lock.js";
import { log } from "../base/log.js";
import { parseStamp, sameStamp, stampFile, stampRecord } from "./digest.js";
import { makePrivate, places } from "./places.js";
import { readRecord } from "./record.js";
import { makeTemporary } from "./temporary.js";

/**
 * The path of an empty ext4 image of `sizeMib` MiB, sparse and read-only, made at the first call, and again when stat(2) says
 * something else about it than when it was made: that is quicker than reading it, and gives the same bytes. It has no journal (it dies with its VM) and nothing that the guest's kernel would have to initialise in the background.
 * Throws INVALID_ARGUMENT, HOST_MISSING, DISK_FULL, CANCELLED.
 */
export async function scratchDisk(sizeMib: number, options: { signal?: AbortSignal } = {}): Promise<string> {
  if (!Number.isInteger(sizeMib) || sizeMib < 16 || sizeMib > 16 << 20) {
    throw new PyroError("INVALID_ARGUMENT", `A scratch disk of ${sizeMib} MiB can't be made; allowed are 16 to ${16 << 20}.`);
  }
  checkSignal(options.signal);
  const path = join(await makePrivate(places.scratch()), `${sizeMib}.ext4`);
  if (await isAsMade(path)) return path;
  const lock = await takeLock(join(places.scratch(), "lock"), options);
  try {
    if (await isAsMade(path)) return path;
    const temporary = await makeTemporary();
    try {
      const image = join(temporary.path, "scratch.ext4");
      await format(image, sizeMib, options);
      await chmod(image, 0o400);
      await syncFile(image);
      await rename(image, path).catch(async () => {
        await rm(path, { recursive: true, force: true }); // a directory can't be replaced
        await rename(image, path);
      });
      await syncDirectory(places.scratch());
      await writeAtomic(recordOf(path), `${JSON.stringify({ schema_version: 1, stamp: stampRecord(await stampFile(path)) }, undefined, 2)}\n`, 0o600);
    } finally {
      await temporary.remove();
    }
  } finally {
    await lock.release();
  }
  return path;
}

async function isAsMade(path: string): Promise<boolean> {
  try {
    const record = await readRecord(recordOf(path), 4096);
    return record !== undefined && sameStamp(parseStamp(record.object("stamp")), await stampFile(path));
  } catch (error) {
    log("the scratch disk is made anew", { path, reason: toPyroError(error).message });
    return false;
  }
}

function recordOf(path: string): string {
  return path.replace(/\.ext4$/, ".json");
}

async function format(image: string, sizeMib: number, options: { signal?: AbortSignal }): Promise<void> {
  // A fixed UUID and hash seed: equal disks are equal bytes. The file is new and reads as zeros, so inode tables need no
  // writing at all, neither now (168 MB of a 10 GiB disk) nor by the guest's kernel later; e2fsprogs knows that from 1.47 on.
  const extended = "lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed=6d6f7472-6565-2d73-6372-617463686469";
  const args = (options: string) => ["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal,^resize_inode", "-m", "0", "-U", "70797261-2d73-6372-6174-636864697363", "-E", options, image, `${sizeMib}M`];
  const run = { ...options, env: { SOURCE_DATE_EPOCH: "0", E2FSPROGS_FAKE_TIME: "1" } };
  let made = await runChild("mke2fs", args(`${extended},assume_storage_prezeroed=1`), run);
  if (made.code !== 0) made = await runChild("mke2fs", args(extended), run);
  if (made.code !== 0) {
    const full = /No space left on device|Disk quota exceeded/.test(made.stderr);
    throw new PyroError(full ? "DISK_FULL" : "INTERNAL", `The scratch disk could not be made: ${harmlessLine(made.stderr.trim(), 800)}`, full ? { hint: "Free some space: `pyro env prune` removes what is no longer used." } : {});
  }
}
