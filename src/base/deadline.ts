import { PyroError } from "./error.js";

/** Resolves after `ms` milliseconds; rejects with CANCELLED as soon as `signal` aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const timer = setTimeout(() => {
      forget();
      resolve();
    }, ms);
    const forget = whenAborted(signal, () => {
      clearTimeout(timer);
      reject(cancelled(signal));
    });
  });
}

const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `work` once when `signal` aborts, unless what this gives was called before; never for one that has aborted already. A signal has one listener of ours,
 * however many wait for it: a program may have one for all its VMs, and Node warns of eleven.
 */
export function whenAborted(signal: AbortSignal | undefined, work: () => void): () => void {
  if (signal === undefined || signal.aborted) return () => {};
  let all = waiting.get(signal);
  if (all === undefined) {
    const called = (all = new Set());
    waiting.set(signal, all);
    signal.addEventListener("abort", () => called.forEach((each) => each()), { once: true });
  }
  const entry = () => work(); // the same work may wait twice
  const set = all.add(entry);
  return () => void set.delete(entry);
}

/** A signal of one's own that aborts with another one. */
export interface Following {
  signal: AbortSignal;
  /** Also when all is over, so that nothing stays behind. */
  abort(reason?: unknown): void;
}

/** As `AbortSignal.any`, which leaves an entry behind in each signal for as long as that lives (Node 20). */
export function follow(signal: AbortSignal | undefined): Following {
  const own = new AbortController();
  if (signal?.aborted) own.abort(signal.reason);
  const forget = whenAborted(signal, () => own.abort(signal!.reason));
  return {
    signal: own.signal,
    abort: (reason) => {
      forget();
      own.abort(reason);
    },
  };
}

/**
 * Settles as `work` does, unless `ms` milliseconds pass or `signal` aborts first. `work` itself is not stopped: whoever
 * started it ends it. `what` finishes the sentence "… did not happen within 5 s": name the thing waited for.
 */
export async function withDeadline<T>(work: Promise<T>, ms: number, what: string, signal?: AbortSignal): Promise<T> {
  const over = follow(signal);
  try {
    return await Promise.race([
      work,
      sleep(ms, over.signal).then(() => {
        throw new PyroError("TIMEOUT", `${what} did not happen within ${ms / 1000} s.`);
      }),
    ]);
  } finally {
    over.abort();
  }
}

/** Settles as `work` does, or rejects with CANCELLED as soon as `signal` aborts. `work` itself is not stopped, and may fail then with nobody there. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(cancelled(signal));
    if (signal.aborted) onAbort();
    work.then(resolve, reject).finally(whenAborted(signal, onAbort));
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
