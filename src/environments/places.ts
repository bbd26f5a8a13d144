/** Where this port keeps things: every path below the cache directory that it uses is made here. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { makeDirectory } from "../base/directory.js";
import { cacheDirectory } from "../base/paths.js";

export const places = {
  environments: () => join(cacheDirectory(), "environments"),
  /** One environment; `digest` is 64 hexadecimal digits. */
  environment: (digest: string) => join(places.environments(), digest),
  names: () => join(places.environments(), "names"),
  /** Which digest a name stands for. */
  name: (name: string) => join(places.names(), `${fileName(name)}.json`),
  locks: () => join(places.environments(), "locks"),
  /** Held by whoever makes or mends the environment of that name. */
  nameLock: (name: string) => join(places.locks(), fileName(name)),
  /** Held shared by whoever makes or mends any environment, exclusively by prune. */
  storeLock: () => join(places.locks(), "store"),
  /** Held while an environment's files are put in place; two names may stand for the same environment. */
  installLock: () => join(places.locks(), "install"),
  /** Held while what was built is put in place. */
  buildLock: () => join(places.locks(), "build"),
  kernels: () => join(cacheDirectory(), "kernels"),
  kernel: (id: string) => join(places.kernels(), id),
  kernelLock: () => join(places.kernels(), "lock"),
  /** What images are made of, by digest: layers as they are stored, manifests, configurations. */
  blobs: () => join(cacheDirectory(), "blobs", "sha256"),
  blob: (hex: string) => join(places.blobs(), hex),
  /** What of them has been fetched so far. */
  partialBlobs: () => join(cacheDirectory(), "blobs", "partial"),
  scratch: () => join(cacheDirectory(), "scratch"),
  temporary: () => join(cacheDirectory(), "tmp"),
};

/** A name as a file's. One that is too long for that, as paths can be, is cut, and known by its digest. */
function fileName(name: string): string {
  const encoded = encodeURIComponent(name);
  return encoded.length <= 200 ? encoded : `${encoded.slice(0, 100)}~${createHash("sha256").update(name).digest("hex")}`;
}

/** Makes `directory` for this user alone, with all above it. Throws DENIED, DISK_FULL. */
export async function makePrivate(directory: string): Promise<string> {
  return makeDirectory(directory);
}
