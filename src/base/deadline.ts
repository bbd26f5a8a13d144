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

/** Who waits for a signal, and the listener that calls them. */
const waiting = new WeakMap<AbortSignal, { all: Set<() => void>; listener: () => void }>();

/**
 * Calls `work` once when `signal` aborts, unless what this gives was called before; never for one that has aborted already. A signal has one listener of ours,
 * however many wait for it: a program may have one for all its VMs, and Node warns of eleven. It has none when nobody waits: Node lets go of no signal of
 * `AbortSignal.any` or `timeout` that has one, and a program may make such a signal for each call.
 */
export function whenAborted(signal: AbortSignal | undefined, work: () => void): () => void {
  if (signal === undefined || signal.aborted) return () => {};
  let those = waiting.get(signal);
  if (those === undefined) {
    const all = new Set<() => void>();
    those = { all, listener: () => all.forEach((each) => each()) };
    waiting.set(signal, those);
    signal.addEventListener("abort", those.listener, { once: true });
  }
  const { all, listener } = those;
  const entry = () => work(); // the same work may wait twice
  all.add(entry);
  return () => {
    if (!all.delete(entry) || all.size > 0) return;
    waiting.delete(signal);
    signal.removeEventListener("abort", listener);
  };
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

/** The same, and it aborts by itself after `ms` milliseconds, for the reason that `late` makes. */
export function followFor(signal: AbortSignal | undefined, ms: number, late?: () => unknown): Following {
  const own = follow(signal);
  const timer = setTimeout(() => own.abort(late?.()), ms);
  return {
    signal: own.signal,
    abort: (reason) => {
      clearTimeout(timer);
      own.abort(reason);
    },
  };
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
  const over = follow(signal);
  try {
    return await Promise.race([
      work,
      runningSleep(ms, over.signal).then(() => {
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
