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

/** Of a wait that may be cut short by the host, the longest step, milliseconds. */
const stepMs = 250;

/**
 * As `sleep`, but of time in which this process ran: where the host stood still meanwhile, a virtual one say, whoever is waited for had no time either, and would
 * be given up on in the moment in which both go on.
 */
export async function runningSleep(ms: number, signal?: AbortSignal): Promise<void> {
  for (let leftMs = ms; leftMs > 0; leftMs -= stepMs) await sleep(Math.min(leftMs, stepMs), signal);
}

/**
 * Settles as `work` does, unless `ms` milliseconds (as `runningSleep` counts them) pass or `signal` aborts first. `work` itself is not stopped: whoever
 * started it ends it. `what` finishes the sentence "… did not happen within 5 s": name the thing waited for.
 */
export async function withDeadline<T>(work: Promise<T>, ms: number, what: string, signal?: AbortSignal): Promise<T> {
  const timer = new AbortController();
  const abort = signal === undefined ? timer.signal : AbortSignal.any([timer.signal, signal]);
  try {
    return await Promise.race([
      work,
      runningSleep(ms, abort).then(() => {
        throw new PyroError("TIMEOUT", `${what} did not happen within ${ms / 1000} s.`);
      }),
    ]);
  } finally {
    timer.abort();
  }
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
