/** The closed set of error codes and what each means. Documentation is made from this table. */
export const errorCodes = {
  INVALID_ARGUMENT: "An argument is outside what is allowed; the message names it, what was given and the range.",
  NOT_FOUND: "What was named does not exist; the hint gives the nearest names.",
  EXISTS: "What was to be made is already there.",
  INVALID_STATE: "The VM is in a state in which this can't be done.",
  UNSUPPORTED: "This build, host or guest can't do it.",
  DENIED: "The host or a policy does not allow it.",
  TIMEOUT: "A deadline passed.",
  CANCELLED: "The caller asked for it to stop.",
  HOST_MISSING: "The host lacks a program or a device; the hint is the command that installs it.",
  BOOT_FAILED: "The guest did not come up; the message carries the end of its console.",
  VMM_EXITED: "The virtual machine monitor ended while it was needed.",
  GUEST_LOST: "The guest stopped answering.",
  PROTOCOL: "The guest, or a program on the host, said something that its protocol does not allow.",
  ENVIRONMENT_INVALID: "An environment is damaged, or an image can't become one.",
  REGISTRY: "A package archive or registry could not be reached or answered wrongly.",
  DISK_FULL: "No space is left on the host's disk.",
  INTERNAL: "A fault of pyro itself.",
} as const;

export type ErrorCode = keyof typeof errorCodes;

export interface PyroErrorOptions {
  /** The next step for whoever reads it: a command, a setting, a name. */
  hint?: string;
  cause?: unknown;
}

/** The one class of error that leaves this package. `code` is for programs, `message` and `hint` for people. */
export class PyroError extends Error {
  override readonly name = "PyroError";
  readonly code: ErrorCode;
  readonly hint?: string;

  constructor(code: ErrorCode, message: string, options: PyroErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    if (options.hint !== undefined) this.hint = options.hint;
  }

  toJSON(): { code: ErrorCode; message: string; hint?: string } {
    return { code: this.code, message: this.message, ...(this.hint === undefined ? {} : { hint: this.hint }) };
  }
}

/** Any thrown value as a PyroError: system errors get the code that fits, all else is INTERNAL. */
export function toPyroError(error: unknown): PyroError {
  if (error instanceof PyroError) return error;
  const errno = systemCode(error);
  const message = error instanceof Error ? error.message : String(error);
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return new PyroError("DISK_FULL", message, { cause: error, hint: "Free some space: `pyro env prune` removes what is no longer used." });
  }
  // The last three: a directory that was named is a file, a loop of links, or too long a name.
  if (errno !== undefined && ["EACCES", "EPERM", "EROFS", "ENOTDIR", "ELOOP", "ENAMETOOLONG"].includes(errno)) {
    return new PyroError("DENIED", message, { cause: error, hint: directoriesHint });
  }
  if (error instanceof Error && error.name === "AbortError") return new PyroError("CANCELLED", "Cancelled.", { cause: error });
  return new PyroError("INTERNAL", message, { cause: error });
}

/** The next step where a directory of ours can't be used. */
export const directoriesHint = "Set XDG_CACHE_HOME and XDG_STATE_HOME to directories that you can write to.";

/** `ENOENT`, `EACCES` … of an error that Node made from an errno; undefined for others. */
export function systemCode(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return undefined;
}
