/** One command in a VM of its own: create, start, exec, gone. */
import { resolve } from "node:path";
import type { Readable, Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { isInCatalog } from "../environments/index.js";
import { checkLimit, limits } from "./limits.js";
import { checkHostCompat, networkOf, type NetworkRequest } from "./network.js";
import type { Refusal } from "./refusals.js";
import { checkCommand, type Command } from "./command.js";
import { execInVm, timeoutOf, type AnsweringVm, type CommandTerminal, type ExecResult, type Surroundings } from "./exec.js";
import type { Host } from "./host-compat.js";
import { commandOf } from "./image-config.js";
import { isHostsFault } from "./hosts-fault.js";
import { newVmId, startVm, type Phase, type StartedVm } from "./start.js";

export interface RunRequest extends Surroundings, NetworkRequest {
  environment: string;
  /** What an image runs by itself when left out. An array goes to the image's entrypoint, if it has one. */
  command?: Command | undefined;
  /** Instead of the image's, with its arguments; empty for none. */
  entrypoint?: readonly string[];
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
  /** Scratch disk, 64 to 1,048,576; default 10,240. Sparse. */
  diskMib?: number;
  /** 1 to 86,400; default 30, with a terminal 86,400. Counted from the command's start. */
  timeoutSeconds?: number;
  /** 1 to 604,800; default 600, or as much longer as the time-out needs. Counted from the VM's start. */
  ttlSeconds?: number;
  /** A file for the audit of its network: a line of JSON for each name, connection and refusal. After 4 MiB it becomes FILE.1, and a new one begins. */
  auditFile?: string;
  /** Runs the command on the host, which isolates little or nothing, if no VM can be had. Never done without this. */
  allowHostCompat?: boolean;
}

export interface RunOptions {
  signal?: AbortSignal;
  onPhase?: (phase: Phase) => void;
  onStarted?: (sendSignal: (signal: number) => void) => void;
  /** Called when the guest's network refuses something; for the same thing once. */
  onRefused?: (refusal: Refusal) => void;
  /** Bytes kept of each output stream; default 1 MiB. */
  captureBytes?: number;
  stdin?: Readable;
  terminal?: CommandTerminal;
  stdout?: Writable;
  stderr?: Writable;
  /** This process is about to end: the VM's end is begun and not waited for. Its keeper sees to it, as it does if this process is killed. */
  leaving?: boolean;
  /** Done in the VM before the command, and after it, whatever its exit status; what they throw is thrown. */
  before?: (vm: AnsweringVm) => Promise<void>;
  after?: (vm: AnsweringVm) => Promise<void>;
}

export async function runInVm(request: RunRequest, options: RunOptions = {}): Promise<ExecResult> {
  const timeoutSeconds = timeoutOf({ timeoutSeconds: request.timeoutSeconds, terminal: options.terminal });
  const checked = {
    environment: request.environment,
    vcpuCount: checkLimit("vcpuCount", request.vcpuCount),
    memMib: checkLimit("memMib", request.memMib),
    diskMib: checkLimit("diskMib", request.diskMib),
    // A command with a long time-out is not to be cut off by a default that nobody chose.
    ttlSeconds: request.ttlSeconds === undefined ? Math.min(Math.max(limits.ttlSeconds.default, timeoutSeconds + 300), limits.ttlSeconds.max) : checkLimit("ttlSeconds", request.ttlSeconds),
  };
  const captureBytes = checkLimit("captureBytes", options.captureBytes);
  if (request.command !== undefined) checkCommand(request.command);
  else if (isInCatalog(request.environment)) commandOf(request, undefined, request.environment); // said before anything is fetched
  const network = await networkOf(request);
  checkHostCompat(request, network);
  const { env, cwd, user } = request;
  const surroundings = { ...(env && { env }), ...(cwd !== undefined && { cwd }), ...(user !== undefined && { user }) };
  const { signal, onPhase } = options;
  const vm = await startVm({ ...checked, ...(network && { network }), ...(request.auditFile !== undefined && { auditFile: resolve(request.auditFile) }) }, { ...(signal && { signal }), ...(onPhase && { onPhase }) }).catch((error: unknown) => {
    if (!request.allowHostCompat || !isHostsFault(error)) throw error;
    return hostInstead(error, { ttlSeconds: checked.ttlSeconds, network: network !== undefined }, onPhase);
  });
  try {
    const command = commandOf(request, "config" in vm ? vm.config : undefined, request.environment);
    await inGuest(vm, options.before);
    // As docker run does for an image; its own directory is made when its disk is.
    if (cwd?.startsWith("/") && !("executionMode" in vm) && vm.config !== undefined) await vm.channel.makeDirectory(cwd, { makeParents: true, ...(signal && { signal }) });
    const result = await execInVm(vm, request.environment, { command, ...surroundings, timeoutSeconds, captureBytes, ...(options.stdin && { stdin: options.stdin }), ...(options.terminal && { terminal: options.terminal }), ...(options.stdout && { stdout: options.stdout }), ...(options.stderr && { stderr: options.stderr }) }, { ...(signal && { signal }), ...(options.onStarted && { onStarted: options.onStarted }), ...(options.onRefused && { onRefused: options.onRefused }) });
    await inGuest(vm, options.after);
    return result;
  } finally {
    const ended = vm.end();
    if (!options.leaving) await ended;
  }
}

/** Never but where the caller allowed it. */
async function hostInstead({ message }: PyroError, { ttlSeconds, network }: { ttlSeconds: number; network: boolean }, onPhase: RunOptions["onPhase"]): Promise<Host> {
  const { openHost } = await import("./host-compat.js");
  const host = await openHost({ vmId: newVmId(), ttlSeconds, network, reason: message });
  onPhase?.({ phase: "start", executionMode: "host_compat", warning: host.warning });
  onPhase?.({ phase: "exec", bootMs: host.bootMs });
  return host;
}

async function inGuest(vm: StartedVm | Host, work: ((vm: AnsweringVm) => Promise<void>) | undefined): Promise<void> {
  if (work === undefined) return;
  if ("executionMode" in vm) throw new PyroError("UNSUPPORTED", "Files can only be put into a VM and taken out of one, and the command would run on the host.", { hint: "Leave out files and return_paths, or allow_host_compat." });
  await work(vm);
}
