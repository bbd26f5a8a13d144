/** An installed environment's files, for a VM to boot from. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { takeLock } from "../base/lock.js";
import { nativeProgram } from "../base/paths.js";
import { digestOf } from "./digest.js";
import type { ImageConfig } from "./images/documents.js";
import { isWantedKernelSource } from "./kernel-source.js";
import type { Manifest } from "./manifest.js";
import { places } from "./places.js";
import { findWanted } from "./wanted.js";
import { checkInstalled, findInstalled, lockFileOf, readManifestOf, replaceInitramfs, type Installed } from "./store.js";

export interface OpenOptions {
  signal?: AbortSignal;
  /** Told when another process has to be waited for; `what` is a clause: "another process is …". */
  onWait?: (what: string) => void;
  /** The one with that digest (`sha256:…`) if it is there, whatever the name stands for by now. */
  digest?: string | undefined;
}

export interface OpenEnvironment {
  name: string;
  /** `sha256:…`; the same root disk, kernel and modules have the same. */
  digest: string;
  /** Absolute paths. */
  directory: string;
  rootDisk: string;
  kernel: string;
  initramfs: string;
  kernelDigest: string;
  initramfsDigest: string;
  kernelVersion: string;
  /** How its image says that commands are run. */
  config?: ImageConfig;
  /** A running VM holds a shared lock on it: prune then leaves the environment alone. */
  lockFile: string;
}

/**
 * The environment `name` if it is installed; undefined if it is not, or has another kernel than PYRO_KERNEL_DIR asks for. Throws
 * ENVIRONMENT_INVALID if it is damaged, NOT_FOUND if there is no such environment, CANCELLED.
 */
export async function openEnvironment(given: string, options: OpenOptions = {}): Promise<OpenEnvironment | undefined> {
  const guestProgram = readFile(nativeProgram("pyro-guest")); // while the environment is looked at
  guestProgram.catch(() => {});
  const kept = options.digest === undefined ? undefined : await findKept(options.digest, options.signal);
  if (kept !== undefined) return openInstalled(given, await withOurGuest(given, kept, await guestProgram, options));
  const { name } = await findWanted(given);
  checkSignal(options.signal);
  try {
    const installed = await findInstalled(name, "stamps", options.signal);
    if (installed === undefined || !(await isWantedKernelSource(installed.manifest.kernel.source))) return undefined;
    return openInstalled(name, await withOurGuest(name, installed, await guestProgram, options));
  } catch (error) {
    if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
    throw new PyroError(error.code, error.message, { hint: error.hint ?? `pyro env pull ${name}`, cause: error });
  }
}

async function findKept(digest: string, signal: AbortSignal | undefined): Promise<Installed | undefined> {
  try {
    const installed = await checkInstalled(digest.slice("sha256:".length), "stamps", signal);
    return (await isWantedKernelSource(installed.manifest.kernel.source)) ? installed : undefined;
  } catch (error) {
    if (error instanceof PyroError && error.code === "ENVIRONMENT_INVALID") return undefined;
    throw error;
  }
}

/** What the image of the environment with that digest (`sha256:…`) says of its commands; undefined for one that was none. A VM that runs holds it. */
export async function configOf(digest: string): Promise<ImageConfig | undefined> {
  return (await readManifestOf(digest.slice("sha256:".length)).catch(() => undefined))?.image?.config;
}

/** The guest program comes with pyro, not with the environment: after an update of pyro the initramfs is packed anew. */
async function withOurGuest(name: string, installed: Installed, guestProgram: Buffer, { signal, onWait }: OpenOptions): Promise<Installed> {
  const guestDigest = digestOf(guestProgram);
  if (installed.manifest.guestDigest === guestDigest) return installed;
  const [{ findKernel }, { packInitramfs }] = await Promise.all([import("./kernel.js"), import("./pull.js")]); // half of this folder, needed once
  const waiting = { ...(signal === undefined ? {} : { signal }), onWait: () => onWait?.("another process is at work on the environments") };
  const storeLock = await takeLock(places.storeLock(), { ...waiting, shared: true });
  try {
    const installLock = await takeLock(places.installLock(), waiting);
    try {
      const current = await checkInstalled(installed.manifest.digest.slice("sha256:".length), "stamps", signal).catch((cause: unknown) => {
        if (!(cause instanceof PyroError) || cause.code !== "ENVIRONMENT_INVALID") throw cause;
        throw new PyroError("ENVIRONMENT_INVALID", `The environment ${name} was removed meanwhile.`, { cause });
      }); // somebody else may have done it while we waited
      if (current.manifest.guestDigest === guestDigest) return current;
      const kernel = await findKernel(current.manifest.kernel.id, signal);
      if (kernel === undefined || kernel.digest !== current.manifest.kernel.digest) throw new PyroError("ENVIRONMENT_INVALID", `The kernel modules of ${name} are no longer there.`);
      const initramfs = await packInitramfs(kernel, guestProgram);
      const manifest: Manifest = {
        ...current.manifest,
        guestDigest,
        files: { ...current.manifest.files, initramfs: { sizeBytes: initramfs.length, digest: digestOf(initramfs) } },
      };
      await replaceInitramfs(current, manifest, initramfs);
      return { manifest, directory: current.directory };
    } finally {
      await installLock.release();
    }
  } finally {
    await storeLock.release();
  }
}

function openInstalled(name: string, { manifest, directory }: Installed): OpenEnvironment {
  return {
    name,
    digest: manifest.digest,
    directory,
    rootDisk: join(directory, "root.erofs"),
    kernel: join(directory, "vmlinux"),
    initramfs: join(directory, "initramfs"),
    kernelDigest: manifest.files.vmlinux.digest,
    initramfsDigest: manifest.files.initramfs.digest,
    kernelVersion: manifest.kernel.version,
    lockFile: lockFileOf(directory),
    ...(manifest.image?.config && { config: manifest.image.config }),
  };
}
