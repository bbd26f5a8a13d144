/** Where this port keeps things: every path below the cache directory that it uses is made here. */
import { join } from "node:path";
import { makeDirectory } from "../base/directory.js";
import { cacheDirectory } from "../base/paths.js";

export const places = {
  environments: () => join(cacheDirectory(), "environments"),
  /** One environment; `digest` is 64 hexadecimal digits. */
  environment: (digest: string) => join(places.environments(), digest),
  names: () => join(places.environments(), "names"),
  /** Which digest a name stands for. */
  name: (name: string) => join(places.names(), `${encodeURIComponent(name)}.json`),
  locks: () => join(places.environments(), "locks"),
  /** Held by whoever makes or mends the environment of that name. */
  nameLock: (name: string) => join(places.locks(), encodeURIComponent(name)),
  /** Held shared by whoever makes or mends any environment, exclusively by prune. */
  storeLock: () => join(places.locks(), "store"),
  /** Held while an environment's files are put in place; two names may stand for the same environment. */
  installLock: () => join(places.locks(), "install"),
  kernels: () => join(cacheDirectory(), "kernels"),
  kernel: (id: string) => join(places.kernels(), id),
  kernelLock: () => join(places.kernels(), "lock"),
  scratch: () => join(cacheDirectory(), "scratch"),
  temporary: () => join(cacheDirectory(), "tmp"),
};

/** Makes `directory` for this user alone, with all above it. Throws DENIED, DISK_FULL. */
export async function makePrivate(directory: string): Promise<string> {
  return makeDirectory(directory);
}
