/** What counts as installed: an environment's manifest and every file it names, with the sizes and digests it names. */
import { chmod, copyFile, link, lstat, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory, syncFile, writeAtomic } from "../base/atomic.js";
import { PyroError, systemCode } from "../base/error.js";
import { digestPattern, hashFile, parseStamp, sameStamp, stampFile, stampRecord, type FileStamp } from "./digest.js";
import { bootFiles, imageDigestOf, environmentDigest, manifestLimits, printManifest, readManifest, type BootFile, type Manifest } from "./manifest.js";
import { makePrivate, places } from "./places.js";
import { readRecord } from "./record.js";
import { namesIn, removeTree } from "./temporary.js";

export interface Installed {
  manifest: Manifest;
  directory: string;
}

export type Check = "stamps" | "full";

/**
 * The environment that `name` stands for; undefined if the name stands for none. With `stamps` a file is only read again when
 * stat(2) says something else than after it was last read; with `full` all are read. Throws ENVIRONMENT_INVALID when anything
 * is missing, cut short, changed or not what the manifest says.
 */
export async function findInstalled(name: string, check: Check, signal?: AbortSignal): Promise<Installed | undefined> {
  const digest = await digestOfName(name);
  if (digest === undefined) return undefined;
  return checkInstalled(digest, check, signal);
}

/** The environment in the directory for `digest` (64 hexadecimal digits), checked. */
export async function checkInstalled(digest: string, check: Check, signal?: AbortSignal): Promise<Installed> {
  const directory = places.environment(digest);
  // Looked at all at once, as every VM waits for it; judged one after the other, so that the same damage is always called the same.
  const lockLook = lstat(lockFileOf(directory)).catch(() => undefined);
  const stampsLook: Promise<Stamps> = check === "full" ? Promise.resolve({}) : readStamps(directory);
  stampsLook.catch(() => {}); // awaited later, and not at all where the manifest is damaged
  const looks = bootFiles.map((name) => stampFile(join(directory, name)).catch((error: unknown) => damaged(digest, `${name} ${systemCode(error) === "ENOENT" ? "is missing" : "can't be read"}`, error)));
  const manifest = await readManifestOf(digest).catch(async (error: unknown) => {
    await Promise.allSettled([stampsLook, ...looks]); // nothing is left open
    throw error;
  });
  if (!(await lockLook)?.isFile()) throw damaged(digest, "its lock is missing"); // no VM could start from it
  const stamps = await stampsLook;
  const stampsNow = await Promise.all(looks);
  const fresh: Stamps = {};
  let changed = false;
  for (const [at, name] of bootFiles.entries()) {
    const path = join(directory, name);
    const stamp = stampsNow[at]!;
    if (stamp instanceof PyroError) throw stamp;
    const expected = manifest.files[name];
    if (stamp.size !== `${expected.sizeBytes}`) throw damaged(digest, `${name} has ${stamp.size} bytes instead of ${expected.sizeBytes}`);
    const before = stamps[name];
    if (before !== undefined && before.digest === expected.digest && sameStamp(before.stamp, stamp)) {
      fresh[name] = before;
      continue;
    }
    const found = await hashFile(path, signal);
    if (found.digest !== expected.digest) throw damaged(digest, `${name} has changed`);
    fresh[name] = { digest: found.digest, stamp: found.stamp };
    changed = true;
  }
  if (changed) await writeStamps(directory, fresh);
  return { manifest, directory };
}

/** The manifest in the directory for `digest`, without looking at the other files. Throws ENVIRONMENT_INVALID. */
export async function readManifestOf(digest: string): Promise<Manifest> {
  const path = join(places.environment(digest), "manifest.json");
  const record = await readRecord(path, manifestLimits.bytes).catch((error: unknown) => {
    if (error instanceof PyroError) throw error;
    throw damaged(digest, "its directory can't be read", error); // it may be a file, or a link to itself
  });
  if (record === undefined) throw damaged(digest, "manifest.json is missing");
  const manifest = readManifest(record);
  const made = environmentDigest(manifest.files["root.erofs"].digest, manifest.kernel.digest, imageDigestOf(manifest.image));
  if (manifest.digest !== `sha256:${digest}` || made !== manifest.digest) throw damaged(digest, "its manifest belongs to another one");
  return manifest;
}

/** The digest (64 hexadecimal digits) that `name` stands for. Throws ENVIRONMENT_INVALID when the record of it is damaged. */
export async function digestOfName(name: string): Promise<string | undefined> {
  const record = await readRecord(places.name(name), 65_536);
  if (record === undefined) return undefined;
  record.integer("schema_version", 1, 1);
  return record.text("digest", 71, digestPattern).slice("sha256:".length);
}

/** The image that `name`, one of the user's own, stands for; undefined for all other names. */
export async function sourceOfName(name: string): Promise<string | undefined> {
  const record = await readRecord(places.name(name), 65_536);
  return record?.isSet("source") ? record.text("source", 1024) : undefined;
}

/** Every name that stands for an environment, as far as the record of it can be read; `file` is that record's, `source` of the user's own names. */
export async function installedNames(): Promise<{ file: string; name?: string; digest?: string; source?: string }[]> {
  const files = (await namesIn(places.names())).filter((each) => each.endsWith(".json"));
  return Promise.all(
    files.map(async (file) => {
      try {
        const record = await readRecord(join(places.names(), file), 65_536);
        if (record === undefined) return { file };
        record.integer("schema_version", 1, 1);
        const name = record.text("name", 1024);
        const source = record.isSet("source") ? record.text("source", 1024) : undefined;
        return places.name(name) === join(places.names(), file) ? { file, name, digest: record.text("digest", 71, digestPattern).slice("sha256:".length), ...(source !== undefined && { source }) } : { file };
      } catch (error) {
        if (error instanceof PyroError) return { file };
        throw error;
      }
    }),
  );
}

/**
 * Makes the environment of `manifest` the one that `name` stands for. The boot files are moved out of `from`, a directory on
 * the same file system. Whatever is there of the same digest is replaced, file by file, the manifest last; if it is whole, it stays.
 * `source` is the image that a name stands for which does not say it itself. The caller holds the install lock.
 */
export async function install(name: string, manifest: Manifest, from: string, signal: AbortSignal | undefined, source?: string): Promise<Installed> {
  const hex = manifest.digest.slice("sha256:".length);
  const present = await checkInstalled(hex, "full", signal).catch((error: unknown) => {
    if (error instanceof PyroError && error.code === "ENVIRONMENT_INVALID") return undefined;
    throw error;
  });
  if (present?.manifest.guestDigest !== manifest.guestDigest) await putInPlace(manifest, from);
  const installed = await checkInstalled(hex, "full", signal);
  await makePrivate(places.names());
  await writeAtomic(places.name(name), `${JSON.stringify({ schema_version: 1, name, digest: manifest.digest, ...(source !== undefined && { source }) }, undefined, 2)}\n`, 0o600);
  return installed;
}

async function putInPlace(manifest: Manifest, from: string): Promise<void> {
  const directory = places.environment(manifest.digest.slice("sha256:".length));
  await makeRoom(directory);
  await makePrivate(directory);
  await rm(join(directory, "manifest.json"), { recursive: true, force: true }); // from here on it does not count as installed
  for (const file of bootFiles) {
    await syncFile(join(from, file));
    await rm(join(directory, file), { recursive: true, force: true });
    await rename(join(from, file), join(directory, file));
  }
  await makeLockFile(lockFileOf(directory));
  await writeAtomic(join(directory, "manifest.json"), printManifest(manifest), 0o600);
  await syncDirectory(places.environments());
}

/** Whatever is in the directory's place and is none goes; a directory that we were shut out of is opened. */
async function makeRoom(directory: string): Promise<void> {
  const there = await lstat(directory).catch(() => undefined);
  if (there === undefined) return;
  if (there.isDirectory()) await chmod(directory, 0o700);
  else await removeTree(directory);
}

/** A lock file that is there stays: a VM may hold it. */
async function makeLockFile(path: string): Promise<void> {
  if ((await lstat(path).catch(() => undefined))?.isFile()) return;
  await rm(path, { recursive: true, force: true });
  await (await open(path, "wx", 0o600)).close();
}

/** Puts a new initramfs and the manifest that goes with it in place. A reader between the two finds a damaged environment and waits for us by pulling. */
export async function replaceInitramfs(installed: Installed, manifest: Manifest, content: Uint8Array): Promise<void> {
  await writeAtomic(join(installed.directory, "initramfs"), content, 0o600);
  await writeAtomic(join(installed.directory, "manifest.json"), printManifest(manifest), 0o600);
}

/** The file whose shared lock says that a VM runs from the environment in `directory`. */
export function lockFileOf(directory: string): string {
  return join(directory, "lock");
}

/** Gives `from` a second name, or copies it where the file system can't do that. */
export async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (systemCode(error) !== "EXDEV" && systemCode(error) !== "EPERM" && systemCode(error) !== "EMLINK") throw error;
    await copyFile(from, to);
  }
}

type Stamps = Partial<Record<BootFile, { digest: string; stamp: FileStamp }>>;

/** A damaged or missing file of stamps only costs the reading of the files. */
async function readStamps(directory: string): Promise<Stamps> {
  const stamps: Stamps = {};
  try {
    const record = await readRecord(join(directory, "verified.json"), 65_536);
    for (const name of record === undefined ? [] : bootFiles) {
      const each = record!.object(name);
      stamps[name] = { digest: each.text("digest", 71, digestPattern), stamp: parseStamp(each.object("stamp")) };
    }
  } catch (error) {
    if (!(error instanceof PyroError)) throw error;
  }
  return stamps;
}

async function writeStamps(directory: string, stamps: Stamps): Promise<void> {
  const record = Object.fromEntries(
    Object.entries(stamps).map(([name, { digest, stamp }]) => [name, { digest, stamp: stampRecord(stamp) }]),
  );
  await writeAtomic(join(directory, "verified.json"), `${JSON.stringify(record, undefined, 2)}\n`, 0o600).catch(() => {}); // a full disk must not stop a VM
}

function damaged(digest: string, what: string, cause?: unknown): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The environment ${digest.slice(0, 12)} is damaged: ${what}.`, { cause });
}
