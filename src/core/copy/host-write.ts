/**
 * A tree from a guest as files of the host. The guest is hostile: it may send a link and then something "below" it, the same name twice, names with control characters,
 * or go away in the middle. So all is made under a name of our own, in a directory that nobody else enters, through directories that were made here; links
 * are made last, so that nothing ever goes through one; and only the whole gets its name.
 */
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { chmod, chown, lchown, link, lstat, lutimes, mkdir, open, readFile, realpath, rename, rm, symlink, utimes, type FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { runChild } from "../../base/child.js";
import { checkSignal } from "../../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { nativeProgram } from "../../base/paths.js";
import { isHole, type TreeEntry } from "../../channel/index.js";
import { removeAtLast } from "../../environments/index.js";
import type { CopyCounter } from "./progress.js";

export interface HostWriteOptions {
  /** Replaces what is there. */
  replace?: boolean;
  /** Owners, set-user-id and set-group-id as in the guest. Without it all is the caller's, and such bits are dropped: whoever is root in a guest would else make programs that are root on the host. */
  archive?: boolean;
  signal?: AbortSignal;
}

/** Makes `entries` at `destination`, an absolute path. Throws EXISTS, NOT_FOUND (its directory), DENIED (also where something is mounted in what would be replaced), DISK_FULL, CANCELLED, and what `entries` throws; nothing is left then. */
export async function writeHostTree(destination: string, entries: AsyncIterable<TreeEntry>, counter: CopyCounter, options: HostWriteOptions = {}): Promise<void> {
  const existing = await kindOf(destination);
  if (existing !== undefined && !options.replace) throw exists(destination);
  if (existing === "directory") await checkNoMounts(destination);
  // Not the destination's name with something behind it: that may be as long as names can be.
  const directory = join(dirname(destination), `.pyro-${randomBytes(6).toString("hex")}`);
  // First of all: who kills us at any later moment leaves nothing. Where the cache is full that is no reason not to save what is in a VM.
  const cleared = await removeAtLast(directory).catch(() => undefined);
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    await cleared?.release();
    throw unwritable(destination, error);
  }
  try {
    const made = `${directory}/new`;
    await new TreeWriter(made, counter, options).write(entries).catch((error: unknown) => {
      throw unfit(error);
    });
    checkSignal(options.signal);
    await (options.replace ? replace(made, destination, directory) : place(made, destination));
  } catch (error) {
    throw error instanceof PyroError ? error : unwritable(destination, error);
  } finally {
    await removeAll(directory).finally(() => cleared?.release());
  }
}

/** What is mounted below a directory goes aside with it, and then the old one can't be removed. Mount points are in the fifth column (proc_pid_mountinfo(5)). */
async function checkNoMounts(destination: string): Promise<void> {
  const [mounts, parent] = await Promise.all([readFile("/proc/self/mountinfo", "utf8").catch(() => ""), realpath(dirname(destination)).catch(() => dirname(destination))]);
  const real = join(parent, basename(destination));
  for (const line of mounts.split("\n")) {
    const place = (line.split(" ")[4] ?? "").replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
    if (`${place}/`.startsWith(`${real}/`)) throw new PyroError("DENIED", `${destination} can't be replaced: ${place} is mounted.`, { hint: "Unmount it, or give another destination." });
  }
}

/** Where nothing is: what came there since it was looked at stays. */
async function place(made: string, destination: string): Promise<void> {
  try {
    if ((await kindOf(made)) === "directory") return await give(made, destination); // replaces nothing but an empty directory
    await link(made, destination);
  } catch (error) {
    const code = systemCode(error) ?? "";
    if (["EEXIST", "ENOTEMPTY", "ENOTDIR"].includes(code)) throw exists(destination);
    if (!["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK"].includes(code)) throw error;
    await rename(made, destination); // a file system without hard links
  }
}

/**
 * In one step. For directories a file system may not be able to, and then the old one goes aside first, and comes back if the new one can't take its place. Until then it is not
 * in our directory, which goes with us: who kills us in between has the old one still.
 */
async function replace(made: string, destination: string, directory: string): Promise<void> {
  const kinds = await Promise.all([made, destination].map(kindOf));
  if (!kinds.includes("directory") || kinds[1] === undefined) return give(made, destination);
  if (await exchange(made, destination)) return;
  const old = `${directory}.old`;
  const wasThere = await rename(destination, old).then(() => true, (error: unknown) => {
    if (systemCode(error) !== "ENOENT") throw error;
    return false; // it went meanwhile
  });
  await give(made, destination).catch(async (error: unknown) => {
    if (wasThere) await rename(old, destination);
    throw error;
  });
  if (wasThere) await rename(old, `${directory}/old`).catch(() => removeAll(old)); // one that its owner may not write to stays where it is
}

/** True if each has the other's place now. What is there says so, not whoever did it, who may have been ended right after. */
async function exchange(made: string, destination: string): Promise<boolean> {
  const { ino } = await lstat(made, { bigint: true });
  await runChild(nativeProgram("pyro-keeper"), ["exchange", made, destination]).catch(() => undefined);
  return (await lstat(destination, { bigint: true }).catch(() => undefined))?.ino === ino;
}

/** A directory that its owner may not write to can't get another parent, but from root: for this moment he may. */
async function give(made: string, destination: string): Promise<void> {
  const found = await lstat(made);
  const { mode } = found;
  if (!found.isDirectory() || (mode & 0o700) === 0o700 || process.geteuid?.() === 0) return rename(made, destination);
  await chmod(made, mode | 0o700);
  const directory = await open(made, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await rename(made, destination);
  } finally {
    await directory.chmod(mode & 0o7777);
    await directory.close();
  }
}

class TreeWriter {
  readonly #root: Buffer;
  readonly #counter: CopyCounter;
  readonly #options: HostWriteOptions;
  /** Directories, the deepest last; each gets its mode and time when all is in it. */
  readonly #directories: TreeEntry[] = [];
  readonly #links: TreeEntry[] = [];

  constructor(root: string, counter: CopyCounter, options: HostWriteOptions) {
    this.#root = Buffer.from(root);
    this.#counter = counter;
    this.#options = options;
  }

  async write(entries: AsyncIterable<TreeEntry>): Promise<void> {
    for await (const entry of entries) {
      checkSignal(this.#options.signal);
      this.#counter.entry(entry.path);
      if (entry.type === "directory") {
        await mkdir(this.#place(entry.path), { mode: 0o700 });
        this.#directories.push(entry);
      } else if (entry.type === "link") this.#links.push(entry);
      else if (entry.type === "fifo") this.#counter.skip(); // Node can't make one
      else if (entry.hardLinkTo !== undefined) await link(this.#place(entry.hardLinkTo), this.#place(entry.path));
      else await this.#file(entry);
    }
    for (const each of this.#links) {
      const place = this.#place(each.path);
      await symlink(each.target!, place);
      if (this.#options.archive) await lchown(place, each.uid, each.gid);
      await lutimes(place, seconds(each), seconds(each));
    }
    for (const each of this.#directories.toReversed()) await this.#finish(each);
  }

  async #file(entry: TreeEntry): Promise<void> {
    const place = this.#place(entry.path);
    const file = await open(place, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    try {
      let sizeBytes = 0;
      for await (const chunk of entry.content ?? []) {
        if (!isHole(chunk)) await writeAll(file, chunk, sizeBytes);
        sizeBytes += chunk.length;
        this.#counter.bytes(chunk.length);
      }
      await file.truncate(sizeBytes); // it may end with a hole
    } finally {
      await file.close();
    }
    await this.#finish(entry);
  }

  /** Owner first: changing it drops set-user-id. */
  async #finish(entry: TreeEntry): Promise<void> {
    const place = this.#place(entry.path);
    if (this.#options.archive) await chown(place, entry.uid, entry.gid);
    await chmod(place, this.#options.archive ? entry.mode : entry.mode & 0o777);
    await utimes(place, seconds(entry), seconds(entry));
  }

  /** The channel has checked that each entry is below a directory of the tree, by names that lead nowhere else. */
  #place(path: Buffer): Buffer {
    return path.length === 0 ? this.#root : Buffer.concat([this.#root, Buffer.from("/"), path]);
  }
}

function exists(destination: string): PyroError {
  return new PyroError("EXISTS", `${destination} is there already.`, { hint: "Give another name, or --force to replace it." });
}

function unwritable(destination: string, error: unknown): PyroError {
  const code = systemCode(error) ?? "";
  const message = `${destination} can't be written: ${error instanceof Error ? error.message : String(error)}`;
  if (code === "ENOENT" || code === "ENOTDIR") return new PyroError("NOT_FOUND", `The directory ${dirname(destination)} is not there.`, { cause: error, hint: "Make it, or give another destination." });
  if (["EACCES", "EPERM", "EROFS", "ELOOP", "ENAMETOOLONG", "EBUSY"].includes(code)) return new PyroError("DENIED", message, { cause: error, hint: "Give a destination that you can write to." });
  return toPyroError(error);
}

/** In a directory of our own such errors are the tree's own fault, and no honest guest sends such a tree. */
function unfit(error: unknown): unknown {
  const code = systemCode(error) ?? "";
  if (["ENOENT", "EEXIST", "ENOTDIR", "EISDIR", "ELOOP"].includes(code)) return new PyroError("PROTOCOL", "The guest sent a tree that can't be: a name twice, or something below what is no directory.", { cause: error });
  if (["ENAMETOOLONG", "EINVAL", "EILSEQ", "EFBIG", "EMLINK"].includes(code)) return new PyroError("INVALID_STATE", `The tree does not fit the host's file system: ${error instanceof Error ? error.message : code}`, { cause: error });
  return error;
}

async function writeAll(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at, chunk.length - at, position + at)).bytesWritten;
}

/** Node takes seconds with a fraction: exact to about a microsecond in our times. A guest's time may be any number; one that no file system has becomes 0. */
function seconds({ mtimeNs }: TreeEntry): number {
  const value = Number(mtimeNs / 1000n) / 1e6;
  return Math.abs(value) < 1e11 ? value : 0;
}

/** Also what has a mode that keeps its owner out. */
async function removeAll(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true }).catch(async () => {
    await makeEnterable(directory);
    await rm(directory, { recursive: true, force: true });
  });
}

async function makeEnterable(directory: string): Promise<void> {
  const { opendir } = await import("node:fs/promises");
  await chmod(directory, 0o700);
  for await (const entry of await opendir(directory)) if (entry.isDirectory()) await makeEnterable(`${directory}/${entry.name}`);
}

async function kindOf(path: string): Promise<"directory" | "other" | undefined> {
  try {
    return (await lstat(path)).isDirectory() ? "directory" : "other";
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw unwritable(path, error);
  }
}
