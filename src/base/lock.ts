/**
 * Locks between processes, held by the kernel (flock(2)) through the keeper, so that they end with whoever held them,
 * however it ended. There is no stale lock to judge and to break.
 */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { keepChild } from "./child.js";
import { cancelled } from "./deadline.js";
import { PyroError } from "./error.js";
import { nativeProgram } from "./paths.js";

export interface Lock {
  release(): Promise<void>;
}

export interface LockOptions {
  shared?: boolean;
  signal?: AbortSignal;
  /** Called once, when somebody else holds the lock and we wait. */
  onWait?: () => void;
}

/** Takes the lock on `file` (made if it is not there), waiting for as long as it takes or until `signal` aborts. */
export async function takeLock(file: string, options: LockOptions = {}): Promise<Lock> {
  await mkdir(dirname(file), { recursive: true });
  const lock = await ask(file, options);
  if (lock === undefined) throw new PyroError("INTERNAL", `The lock ${file} could not be taken.`);
  return lock;
}

/** Takes the lock on `file` if nobody holds it against us; undefined if somebody does. */
export async function tryLock(file: string, options: { shared?: boolean } = {}): Promise<Lock | undefined> {
  await mkdir(dirname(file), { recursive: true });
  return ask(file, { ...options, try: true });
}

async function ask(file: string, options: LockOptions & { try?: boolean }): Promise<Lock | undefined> {
  const args = ["lock", ...(options.shared ? ["--shared"] : []), ...(options.try ? ["--try"] : []), "--", file];
  const child = await keepChild(nativeProgram("pyro-keeper"), args, { stdio: ["pipe", "pipe", "ignore"] });
  const onAbort = () => void child.end();
  options.signal?.addEventListener("abort", onAbort, { once: true });
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
    if (locked) return { release: async () => void (await child.end()) };
    if (options.signal?.aborted) throw cancelled(options.signal);
    if (options.try && (await child.exited).code === 75) return undefined;
    throw new PyroError("INTERNAL", `The lock ${file} could not be taken.`);
  } finally {
    options.signal?.removeEventListener("abort", onAbort);
  }
}
