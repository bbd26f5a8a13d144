import { PyroError, type ErrorCode } from "../base/error.js";

const failures: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["HOST_MISSING", "BOOT_FAILED", "VMM_EXITED"]);

/** Whether no VM can be had here: the host lacks something, or guests don't come up on it. What the caller got wrong stays an error. */
export function isHostsFault(error: unknown): error is PyroError {
  return error instanceof PyroError && failures.has(error.code);
}
