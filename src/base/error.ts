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
  HOST_MISSING: "The host lacks a program, a device or room; the hint is the command that installs it, or what else mends it.",
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
  const lack = errno === undefined ? undefined : lacks[errno];
  if (lack !== undefined) return new PyroError("HOST_MISSING", message, { cause: error, hint: lack });
  if (error instanceof Error && error.name === "AbortError") return new PyroError("CANCELLED", "Cancelled.", { cause: error });
  return new PyroError("INTERNAL", message, { cause: error });
}

/** What there is too little of, by the system's word for it, and the next step: no fault of ours, and none of what was asked for. */
const lacks: Readonly<Record<string, string>> = {
  EMFILE: "Hold fewer VMs at a time in one process, or raise its limit of open files: `ulimit -n`, LimitNOFILE= of a systemd service.",
  ENFILE: "Hold fewer VMs at a time, or raise the host's limit of open files: sudo sysctl -w fs.file-max=NUMBER",
  ENOMEM: "Hold fewer VMs at a time, give them less memory (--mem-mib), or end something else.",
};

/** The next step where a directory of ours can't be used. */
export const directoriesHint = "Set XDG_CACHE_HOME and XDG_STATE_HOME to directories that you can write to.";

/** `ENOENT`, `EACCES` … of an error that Node made from an errno; undefined for others. */
export function systemCode(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return undefined;
}
