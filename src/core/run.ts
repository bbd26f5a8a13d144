/** One command in a VM of its own: create, start, exec, gone. */
import type { Readable, Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { checkLimit, limits } from "./limits.js";
import { execInVm, type Command, type ExecResult } from "./exec.js";
import { startVm, type Phase } from "./start.js";

export interface RunRequest {
  environment: string;
  command: Command;
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
  /** 1 to 86,400; default 30. Counted from the command's start. */
  timeoutSeconds?: number;
  /** 1 to 604,800; default 600, or as much longer as the time-out needs. Counted from the VM's start. */
  ttlSeconds?: number;
  network?: boolean;
  allowHostCompat?: boolean;
}

export interface RunOptions {
  signal?: AbortSignal;
  onPhase?: (phase: Phase) => void;
  onStarted?: (sendSignal: (signal: number) => void) => void;
  /** Bytes kept of each output stream; default 1 MiB. */
  captureBytes?: number;
  stdin?: Readable;
  stdout?: Writable;
  stderr?: Writable;
  /** This process is about to end: the VM's end is begun and not waited for. Its keeper sees to it, as it does if this process is killed. */
  leaving?: boolean;
}

export async function runInVm(request: RunRequest, options: RunOptions = {}): Promise<ExecResult> {
  const timeoutSeconds = checkLimit("timeoutSeconds", request.timeoutSeconds);
  const checked = {
    environment: request.environment,
    vcpuCount: checkLimit("vcpuCount", request.vcpuCount),
    memMib: checkLimit("memMib", request.memMib),
    // A command with a long time-out is not to be cut off by a default that nobody chose.
    ttlSeconds: request.ttlSeconds === undefined ? Math.min(Math.max(limits.ttlSeconds.default, timeoutSeconds + 300), limits.ttlSeconds.max) : checkLimit("ttlSeconds", request.ttlSeconds),
  };
  const captureBytes = checkLimit("captureBytes", options.captureBytes);
  checkCommand(request.command);
  if (request.network) {
    throw new PyroError("UNSUPPORTED", "Networking is not available yet: there is no gateway that could hold a policy.", { hint: "Leave out --network (network); the guest then has no network at all." });
  }
  const { signal, onPhase } = options;
  const vm = await startVm(checked, { ...(signal && { signal }), ...(onPhase && { onPhase }) }).catch((error: unknown) => {
    if (request.allowHostCompat && error instanceof PyroError && isHostsFault(error)) {
      throw new PyroError(error.code, `${error.message} Running on the host instead is not available yet.`, { ...(error.hint !== undefined && { hint: error.hint }), cause: error });
    }
    throw error;
  });
  try {
    return await execInVm(vm, request.environment, { command: request.command, timeoutSeconds, captureBytes, ...(options.stdin && { stdin: options.stdin }), ...(options.stdout && { stdout: options.stdout }), ...(options.stderr && { stderr: options.stderr }) }, { ...(signal && { signal }), ...(options.onStarted && { onStarted: options.onStarted }) });
  } finally {
    const ended = vm.end();
    if (!options.leaving) await ended;
  }
}

/** Limits of Linux itself (a string of an argument list is at most 128 KiB) and of the channel (1 MiB for all of it). */
function checkCommand(command: Command): void {
  const words = (typeof command === "string" ? [command] : command).map((word) => Buffer.from(word));
  if (words[0] === undefined || words[0].length === 0) throw new PyroError("INVALID_ARGUMENT", "The command is empty.", { hint: "Give a command: pyro run debian:12 -- git --version" });
  if (words.length > 4096) throw new PyroError("INVALID_ARGUMENT", `The command has ${words.length} words; at most 4096 are allowed.`);
  let total = 0;
  for (const word of words) {
    const bytes = word.length;
    if (word.includes(0)) throw new PyroError("INVALID_ARGUMENT", "The command contains a NUL byte; arguments can't.");
    if (bytes > 131_071) throw new PyroError("INVALID_ARGUMENT", `An argument has ${bytes} bytes; Linux allows 131071.`, { hint: "Hand large content over on standard input." });
    total += bytes + 5;
  }
  if (total > 1_000_000) throw new PyroError("INVALID_ARGUMENT", `The command has ${total} bytes; at most 1000000 are allowed.`, { hint: "Hand large content over on standard input." });
}

function isHostsFault(error: PyroError): boolean {
  return error.code === "HOST_MISSING" || error.code === "BOOT_FAILED" || error.code === "VMM_EXITED";
}
