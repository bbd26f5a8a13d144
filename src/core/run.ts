/** One command in a VM of its own: create, start, exec, gone. */
import type { Readable, Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { checkLimit, limits } from "./limits.js";
import { checkNetwork } from "./network.js";
import { checkCommand, type Command } from "./command.js";
import { execInVm, type AnsweringVm, type ExecResult, type Surroundings } from "./exec.js";
import { startVm, type Phase } from "./start.js";

export interface RunRequest extends Surroundings {
  environment: string;
  command: Command;
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
  /** Scratch disk, 64 to 1,048,576; default 10,240. Sparse. */
  diskMib?: number;
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
  /** Done in the VM before the command, and after it, whatever its exit status; what they throw is thrown. */
  before?: (vm: AnsweringVm) => Promise<void>;
  after?: (vm: AnsweringVm) => Promise<void>;
}

export async function runInVm(request: RunRequest, options: RunOptions = {}): Promise<ExecResult> {
  const timeoutSeconds = checkLimit("timeoutSeconds", request.timeoutSeconds);
  const checked = {
    environment: request.environment,
    vcpuCount: checkLimit("vcpuCount", request.vcpuCount),
    memMib: checkLimit("memMib", request.memMib),
    diskMib: checkLimit("diskMib", request.diskMib),
    // A command with a long time-out is not to be cut off by a default that nobody chose.
    ttlSeconds: request.ttlSeconds === undefined ? Math.min(Math.max(limits.ttlSeconds.default, timeoutSeconds + 300), limits.ttlSeconds.max) : checkLimit("ttlSeconds", request.ttlSeconds),
  };
  const captureBytes = checkLimit("captureBytes", options.captureBytes);
  checkCommand(request.command);
  checkNetwork(request.network);
  const { env, cwd, user } = request;
  const surroundings = { ...(env && { env }), ...(cwd !== undefined && { cwd }), ...(user !== undefined && { user }) };
  const { signal, onPhase } = options;
  const vm = await startVm(checked, { ...(signal && { signal }), ...(onPhase && { onPhase }) }).catch((error: unknown) => {
    if (request.allowHostCompat && error instanceof PyroError && isHostsFault(error)) {
      throw new PyroError(error.code, `${error.message} Running on the host instead is not available yet.`, { ...(error.hint !== undefined && { hint: error.hint }), cause: error });
    }
    throw error;
  });
  try {
    await options.before?.(vm);
    const result = await execInVm(vm, request.environment, { command: request.command, ...surroundings, timeoutSeconds, captureBytes, ...(options.stdin && { stdin: options.stdin }), ...(options.stdout && { stdout: options.stdout }), ...(options.stderr && { stderr: options.stderr }) }, { ...(signal && { signal }), ...(options.onStarted && { onStarted: options.onStarted }) });
    await options.after?.(vm);
    return result;
  } finally {
    await vm.end();
  }
}

function isHostsFault(error: PyroError): boolean {
  return error.code === "HOST_MISSING" || error.code === "BOOT_FAILED" || error.code === "VMM_EXITED";
}
