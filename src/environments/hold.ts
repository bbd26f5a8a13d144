/** Keeping an environment from being pruned between opening it and the VM's keeper holding it. */
import { access } from "node:fs/promises";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { takeLock, type Lock } from "../base/lock.js";
import type { OpenEnvironment } from "./open.js";
import { readManifestOf } from "./store.js";

export interface HoldOptions {
  signal?: AbortSignal;
  /** Told when another process has to be waited for; `what` is a clause: "another process is …". */
  onWait?: (what: string) => void;
}

/**
 * Takes a shared lock on an environment that `openEnvironment` gave: until its release, or the end of this process, prune leaves
 * the environment alone. Waits for whoever is about to remove it. Throws ENVIRONMENT_INVALID when it was removed meanwhile
 * (open or pull it again), CANCELLED.
 */
export async function holdEnvironment(environment: OpenEnvironment, options: HoldOptions = {}): Promise<Lock> {
  const { signal, onWait } = options;
  checkSignal(signal);
  const gone = async () => access(environment.lockFile).then(() => false, () => true);
  const removed = (cause?: unknown) => new PyroError("ENVIRONMENT_INVALID", `The environment ${environment.name} was removed meanwhile.`, { hint: `pyro env pull ${environment.name}`, cause });
  if (await gone()) throw removed(); // asking for the lock would make it
  const waiting = { ...(signal === undefined ? {} : { signal }), onWait: () => onWait?.("another process is removing environments") };
  const lock = await takeLock(environment.lockFile, { ...waiting, shared: true }).catch(async (error: unknown) => {
    checkSignal(signal);
    throw (await gone()) ? removed(error) : error;
  });
  try {
    await readManifestOf(environment.digest.slice("sha256:".length));
  } catch (error) {
    await lock.release();
    throw removed(error);
  }
  return lock;
}
