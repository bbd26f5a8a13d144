/** An environment made by commands: they run in a VM over another one, and what they changed is kept under a new name. */
import { PyroError, systemCode, toPyroError } from "../base/error.js";
import { readRegular } from "../base/regular-file.js";
import { checkBuildBase, checkBuildName, holdLayer, type Environment } from "../environments/index.js";
import { checkCommand, type Command } from "./command.js";
import { copyIn } from "./copy/copy.js";
import { execInVm, type AnsweringVm, type ExecOptions, type ExecRequest, type ExecResult, type Surroundings } from "./exec.js";
import { checkLimit, limits } from "./limits.js";
import { networkOf, type PolicyRequest } from "./network.js";
import { startVm, type Phase } from "./start.js";

/** Secrets are not for here: their authority would be among what is kept. */
export interface BuildRequest extends Surroundings, PolicyRequest {
  /** What is built is known by this name from then on; what had it before, goes. */
  name: string;
  /** The environment that is built upon. Pulled if it is not installed. */
  from: string;
  /** Run without the image's entrypoint. With `script`, an array of its arguments. */
  command?: Command | undefined;
  /** A file on the host that is run in the VM, by `/bin/sh` where it does not say by what. At most 1 MiB. Not kept. */
  script?: string;
  /** Files and directories of the host that are copied in before, to root's ownership; what is missing above their destinations is made. */
  copies?: readonly { source: string; destination: string }[];
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
  /** Scratch disk, 64 to 1,048,576; default 10,240. What is built upon the environment can have twice that as an archive. */
  diskMib?: number;
  /** 1 to 86,400; default 3,600. */
  timeoutSeconds?: number;
}

export interface BuildOptions extends ExecOptions, Pick<ExecRequest, "stdout" | "stderr" | "stdin"> {
  onPhase?: (phase: Phase) => void;
  /** Bytes kept of each output stream; default 1 MiB. */
  captureBytes?: number;
}

export interface BuildResult {
  /** Of the command; absent where there were only files to copy. */
  result?: ExecResult;
  /** What was built; absent where the command failed, and then nothing stays. */
  environment?: Environment;
}

const defaultTimeoutSeconds = 3600;
const maxScriptBytes = 1 << 20;
/** In memory, and in no layer. */
const scriptPath = "/run/pyro-build/script";
/** For copying in and carrying out, beyond the command's time. */
const carryingSeconds = 7200;

/**
 * A command that ends with another status than 0, or for its time, is a result without an environment. Throws INVALID_ARGUMENT, NOT_FOUND, ENVIRONMENT_INVALID where what came out
 * of the VM can't be a layer, DISK_FULL, and what starting a VM throws. What fails leaves nothing, and the name as it was.
 */
export async function buildEnvironment(request: BuildRequest, options: BuildOptions = {}): Promise<BuildResult> {
  const { name, from } = request;
  await checkBuildName(name);
  const timeoutSeconds = checkLimit("timeoutSeconds", request.timeoutSeconds ?? defaultTimeoutSeconds);
  const diskMib = checkLimit("diskMib", request.diskMib);
  const sizes = { vcpuCount: checkLimit("vcpuCount", request.vcpuCount), memMib: checkLimit("memMib", request.memMib), diskMib };
  const script = request.script === undefined ? undefined : await readScript(request.script);
  const command = commandFor(request, script);
  const { allowHosts, denyHosts, allowNets } = request;
  const network = await networkOf({ ...(request.network !== undefined && { network: request.network }), ...(allowHosts && { allowHosts }), ...(denyHosts && { denyHosts }), ...(allowNets && { allowNets }) });
  const { signal, onPhase } = options;
  const vm = await startVm({ environment: from, ...sizes, ...(network && { network }), ttlSeconds: Math.min(timeoutSeconds + carryingSeconds, limits.ttlSeconds.max) }, { ...(signal && { signal }), ...(onPhase && { onPhase }) });
  let layer: Awaited<ReturnType<typeof holdLayer>>;
  let result: ExecResult | undefined;
  try {
    await checkBuildBase(vm.environmentDigest);
    for (const { source, destination } of request.copies ?? []) await copyIn(vm, source, destination, { makeParents: true, replace: true, ...(signal && { signal }) });
    if (command !== undefined) {
      result = await run(vm, request, command, script, timeoutSeconds, options);
      if (result.exitCode !== 0 || result.timedOut) return { result };
    }
    const { content } = vm.channel.readLayer(signal && { signal });
    const target = { name, baseName: from, baseDigest: vm.environmentDigest, createdBy: `pyro env build --from ${from}${command === undefined ? "" : ` -- ${shown(command)}`}`.slice(0, 1000) };
    layer = await holdLayer(target, content, { maxBytes: maxLayerBytes(diskMib), ...(signal && { signal }), ...(onPhase && { onProgress: (progress) => onPhase({ phase: "pull", progress }) }) });
  } finally {
    await vm.end();
  }
  try {
    return { ...(result && { result }), environment: await layer.install() };
  } finally {
    await layer.release();
  }
}

async function readScript(path: string): Promise<Buffer> {
  return readRegular(path, maxScriptBytes).catch((error: unknown) => {
    throw systemCode(error) === "ENOENT" ? new PyroError("NOT_FOUND", `There is no script ${path}.`, { cause: error }) : toPyroError(error);
  });
}

/** More than that a disk can't hold but with holes in files, which a guest could make of any size. */
function maxLayerBytes(diskMib: number): number {
  return 2 * diskMib * 1048576;
}

function commandFor({ command, copies = [] }: BuildRequest, script: Buffer | undefined): Command | undefined {
  if (script !== undefined) {
    if (typeof command === "string") throw new PyroError("INVALID_ARGUMENT", "With a script the command is an array: its arguments.");
    const words = [...(script.subarray(0, 2).toString("latin1") === "#!" ? [] : ["/bin/sh"]), scriptPath, ...(command ?? [])];
    checkCommand(words);
    return words;
  }
  if (command !== undefined) checkCommand(command);
  else if (copies.length === 0) throw new PyroError("INVALID_ARGUMENT", "There is nothing to build: no command, no script and nothing to copy.", { hint: "pyro env build NAME --from ENVIRONMENT -- COMMAND" });
  return command;
}

async function run(vm: AnsweringVm, request: BuildRequest, command: Command, script: Buffer | undefined, timeoutSeconds: number, options: BuildOptions): Promise<ExecResult> {
  const { signal, onStarted, onRefused, stdin, stdout, stderr } = options;
  if (script !== undefined) await vm.channel.writeFile(scriptPath, script, { mode: 0o755, makeParents: true, ...(signal && { signal }) });
  const { env, cwd, user } = request;
  const surroundings = { ...(env && { env }), ...(cwd !== undefined && { cwd }), ...(user !== undefined && { user }) };
  const streams = { ...(stdin && { stdin }), ...(stdout && { stdout }), ...(stderr && { stderr }) };
  return execInVm(vm, request.from, { command, ...surroundings, timeoutSeconds, captureBytes: checkLimit("captureBytes", options.captureBytes), ...streams }, { ...(signal && { signal }), ...(onStarted && { onStarted }), ...(onRefused && { onRefused }) });
}

function shown(command: Command): string {
  return typeof command === "string" ? command : command.map((word) => Buffer.from(word as string).toString("utf8")).join(" ");
}
