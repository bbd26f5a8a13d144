import { PyroError } from "./error.js";

/** Resolves after `ms` milliseconds; rejects with CANCELLED as soon as `signal` aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    const onAbort = () => {
      clearTimeout(timer);
      reject(cancelled(signal));
    };
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/**
 * Settles as `work` does, unless `ms` milliseconds pass or `signal` aborts first. `work` itself is not stopped: whoever
 * started it ends it. `what` finishes the sentence "… did not happen within 5 s": name the thing waited for.
 */
export async function withDeadline<T>(work: Promise<T>, ms: number, what: string, signal?: AbortSignal): Promise<T> {
  const timer = new AbortController();
  const abort = signal === undefined ? timer.signal : AbortSignal.any([timer.signal, signal]);
  try {
    return await Promise.race([
      work,
      sleep(ms, abort).then(() => {
        throw new PyroError("TIMEOUT", `${what} did not happen within ${ms / 1000} s.`);
      }),
    ]);
  } finally {
    timer.abort();
  }
}

/** Settles as `work` does, or rejects with CANCELLED as soon as `signal` aborts. `work` itself is not stopped, and may fail then with nobody there. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(cancelled(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Throws CANCELLED if `signal` has been aborted. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(signal);
}

/** What an aborted operation rejects with; a PyroError given as the reason is kept. */
export function cancelled(signal: AbortSignal | undefined): PyroError {
  const reason: unknown = signal?.reason;
  return reason instanceof PyroError ? reason : new PyroError("CANCELLED", "Cancelled.", { cause: reason });
}
