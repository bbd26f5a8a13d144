/** Waiting for a request's result, and what a failed one means to the caller. */
import { PyroError, type ErrorCode } from "../base/error.js";
import { cancelled, whenAborted } from "../base/deadline.js";
import type { Fields } from "./message.js";
import type { Failure, GuestStream } from "./stream.js";

/**
 * The fields of a successful RESULT; a failure rejects. When `signal` aborts or `work`, which goes on beside it, rejects, the
 * request is cancelled and that is the error. `what` finishes "The guest could not …".
 */
export async function answerOf(stream: GuestStream, what: string, signal?: AbortSignal, work?: Promise<void>): Promise<Fields> {
  let forget = () => {};
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = () => {
      stream.cancel();
      reject(cancelled(signal));
    };
    if (signal?.aborted) onAbort();
    else forget = whenAborted(signal, onAbort);
  });
  const broken = (work ?? Promise.resolve()).then(() => new Promise<never>(() => {}));
  try {
    const result = await Promise.race([stream.result, aborted, broken]);
    if ("failure" in result) throw failureError(result.failure, what);
    return result.fields;
  } finally {
    forget();
  }
}

const codes: Readonly<Record<number, ErrorCode>> = {
  1: "DENIED", // EPERM
  2: "NOT_FOUND", // ENOENT
  13: "DENIED", // EACCES
  17: "EXISTS", // EEXIST
  30: "DENIED", // EROFS
  125: "CANCELLED", // ECANCELED
};

export function failureError({ errno, stage, message }: Failure, what: string): PyroError {
  return new PyroError(codes[errno] ?? "INVALID_STATE", `The guest could not ${what}: ${stage} failed: ${message}`);
}
