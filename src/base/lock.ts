/**
 * Locks between processes, held by the kernel (flock(2)) through the keeper, so that they end with whoever held them,
 * however it ended. There is no stale lock to judge and to break.
 */
import { dirname } from "node:path";
import { keepChild, keepTail } from "./child.js";
import { cancelled, whenAborted } from "./deadline.js";
import { makeDirectory } from "./directory.js";
import { PyroError, toPyroError } from "./error.js";
import { harmlessLine } from "./harmless.js";
import { nativeProgram } from "./paths.js";

export interface Lock {
  release(): Promise<void>;
}

export interface LockOptions {
  shared?: boolean;
  signal?: AbortSignal;
  /** Called once, when somebody else holds the lock and we wait. */
  onWait?: () => void;
  /**
   * A program (an absolute path) and its arguments, run when the lock ends, by `release` or with this process, and before
   * anybody else gets it; again and again until it succeeds, for two minutes at most.
   */
  last?: readonly [string, ...string[]];
}

/**
 * Takes the lock on `file` (made if it is not there), waiting for as long as it takes or until `signal` aborts. Throws DENIED
 * or DISK_FULL when there can be no such file.
 */
export async function takeLock(file: string, options: LockOptions = {}): Promise<Lock> {
  await makeDirectory(dirname(file));
  const lock = await ask(file, options);
  if (lock === undefined) throw new PyroError("INTERNAL", `The lock ${file} could not be taken.`);
  return lock;
}

/** Takes the lock on `file` if nobody holds it against us; undefined if somebody does. */
export async function tryLock(file: string, options: { shared?: boolean } = {}): Promise<Lock | undefined> {
  await makeDirectory(dirname(file));
  return ask(file, { ...options, try: true });
}

async function ask(file: string, options: LockOptions & { try?: boolean }): Promise<Lock | undefined> {
  const args = ["lock", ...(options.shared ? ["--shared"] : []), ...(options.try ? ["--try"] : []), "--", file, ...(options.last ?? [])];
  const child = await keepChild(nativeProgram("pyro-keeper"), args, { stdio: ["pipe", "pipe", "pipe"], ...(options.last === undefined ? {} : { graceMs: lastMs }) });
  const stderr = keepTail(child.stdio[2]!, 4096);
  // With `last` it only believes its input that we let go of it.
  const end = () => {
    child.stdio[0]!.destroy();
    return child.end();
  };
  const onAbort = () => void end();
  const forget = whenAborted(options.signal, onAbort);
  if (options.signal?.aborted) onAbort();
  try {
    // The keeper says `waiting` when it has to wait, then `locked`.
    let said = "";
    const locked = await new Promise<boolean>((resolve) => {
      let told = false;
      child.stdio[1]!.on("data", (chunk: Buffer) => {
        said += chunk.toString("latin1");
        if (said.includes("waiting\n") && !told) {
          told = true;
          options.onWait?.();
        }
        if (said.endsWith("locked\n")) resolve(true);
      });
      void child.exited.then(() => resolve(false), () => resolve(false));
    });
    if (options.signal?.aborted) {
      await end(); // also where it has the lock: it is about to let go of it
      throw cancelled(options.signal);
    }
    if (locked) return { release: async () => void (await end()) };
    if (options.try && (await child.exited).code === 75) return undefined;
    throw lockError(file, stderr());
  } finally {
    forget();
  }
}

const lastMs = 120_000;

/** The keeper's words end with strerror(3)'s in the C locale. */
function lockError(file: string, said: string): PyroError {
  const why = /: ([^:\n]*)\n$/.exec(said)?.[1] ?? "";
  const error = new Error(`The lock ${file} could not be taken: ${why === "" ? "no reason was given" : harmlessLine(why, 200)}.`);
  return toPyroError(Object.assign(error, { code: errorNumbers[why] }));
}

const errorNumbers: Record<string, string> = {
  "Permission denied": "EACCES",
  "Operation not permitted": "EPERM",
  "Read-only file system": "EROFS",
  "No space left on device": "ENOSPC",
  "Disk quota exceeded": "EDQUOT",
};
