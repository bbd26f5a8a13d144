/** QEMU as a process: under the keeper, with its monitor, console and ports attached. */
import { constants, statSync } from "node:fs";
import { open, realpath, type FileHandle } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { findProgram, keepChild, keeperTtlStatus, type BesideProgram, type ChildExit, type KeptChild } from "../../base/child.js";
import { sleep, whenAborted } from "../../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { settings } from "../../base/settings.js";
import { ConsoleLog } from "../console.js";
import { hostLimits } from "../host-limits.js";
import { connectIn, logTail, placeNames, portCount } from "../place.js";
import { childrenCpuMs } from "../process-time.js";
import { Qmp } from "../qmp.js";
import type { Accelerator, GatewayProgram, RunningVm, VmExit, VmPlace, VmSpec } from "../vmm.js";
import { consoleFd, Descriptors, firstPortFd, monitorFd } from "./qemu-command.js";

const maxStderrChars = 8192;

/** A running QEMU and its monitor, which stays inside this folder. */
export interface Process {
  vm: RunningVm;
  qmp: Qmp;
  /** Ends it because of what it did: the exit's reason will be `failed`, with this. */
  giveUp(why: unknown): void;
}

/** Throws INVALID_ARGUMENT. */
export function checkPorts(spec: VmSpec): void {
  const count = spec.ports ?? 1;
  if (!Number.isInteger(count) || count < 1 || count > portCount) throw new PyroError("INVALID_ARGUMENT", `A VM with ${count} ports; allowed are 1 to ${portCount}.`);
}

/** Starts QEMU with these words and descriptors; it has copies of the descriptors when this resolves. */
export async function launch(args: readonly string[], stdio: Descriptors, spec: VmSpec, accelerator: Accelerator, signal?: AbortSignal): Promise<Process> {
  const gateway = spec.gateway === undefined ? undefined : besideMonitor(spec.gateway, stdio, spec.place !== undefined);
  // Not by a link to it: in its confinement it would look for its modules and firmware beside that.
  const program = await realpath(await findProgram(settings.qemu()));
  const child = await keepChild(program, args, {
    stdio: stdio.list,
    graceMs: 0,
    limits: hostLimits(spec),
    confine: {
      ...(args.includes("-kernel") && { read: [spec.kernel, spec.initramfs] }),
      ...(accelerator === "kvm" && { write: ["/dev/kvm"] }),
      ...(stdio.memory !== undefined && { [stdio.sealed ? "seal" : "reopen"]: stdio.memory }),
    },
    ...(gateway !== undefined && { beside: gateway.program }),
    ...(spec.ttlSeconds !== undefined && { ttlSeconds: spec.ttlSeconds }),
    ...(spec.lockShared !== undefined && { lockShared: spec.lockShared }),
    ...(spec.place !== undefined && {
      place: {
        directory: spec.place.directory,
        listen: Array.from({ length: portCount }, (_, port) => [firstPortFd + port, placeNames.port(port)] as const),
        log: [[2, placeNames.stderr], [consoleFd, placeNames.console]],
      },
    }),
  });
  return attach(child, accelerator, spec, gateway, signal);
}

/** Its descriptors of ours are behind all others. */
interface GatewayFds {
  program: BesideProgram;
  controlFd: number;
  /** Undefined where the keeper logs it. */
  stderrFd: number | undefined;
}

function besideMonitor(gateway: GatewayProgram, stdio: Descriptors, placed: boolean): GatewayFds {
  const controlFd = stdio.add("pipe");
  const stderrFd = placed ? undefined : stdio.add("pipe");
  return {
    controlFd,
    stderrFd,
    program: {
      ...gateway,
      cable: [stdio.cable!, 3],
      give: [[controlFd, 4], ...(stderrFd === undefined ? [] : [[stderrFd, 2] as const])],
      ...(placed && { listen: [[5, placeNames.net]], log: [[2, placeNames.netLog]] }),
    },
  };
}

/** Opens disk images; `files` gets each handle, for the caller to close. */
export async function openDisk(path: string, files: FileHandle[]): Promise<FileHandle> {
  try {
    const file = await open(path, constants.O_RDONLY);
    files.push(file);
    return file;
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new PyroError("ENVIRONMENT_INVALID", `The disk image ${path} is not there.`, { cause: error, hint: "`pyro env pull` makes the environment again." });
  }
}

async function attach(child: KeptChild, accelerator: Accelerator, { place: { directory: place } = {}, ports = 1 }: Pick<VmSpec, "ports"> & { place?: Partial<VmPlace> }, gateway: GatewayFds | undefined, signal?: AbortSignal): Promise<Process> {
  const guestConsole = place === undefined ? readLog(child.stdio[consoleFd]!) : fileLog(place, placeNames.console);
  // The keeper has its own words for us, also where those of QEMU go to a log.
  const ownStderr = readLog(child.stdio[2]!);
  const stderr = place === undefined ? ownStderr : { tail: () => ownStderr.tail() || logTail(place, placeNames.stderr) };
  const qmp = new Qmp(child.stdio[monitorFd]!);
  let killed = false;
  let given: string | undefined;
  let lastCpuMs: number | undefined;
  const end = async () => {
    killed = true;
    await child.end();
  };
  const onAbort = () => void end();
  const forget = whenAborted(signal, onAbort);
  const exited = child.exited.then(async (exit): Promise<VmExit> => {
    forget();
    const reason = given === undefined ? exitReason(exit, killed) : "failed";
    const hint = reason === "failed" && given === undefined && guestConsole.totalBytes === 0 ? await wrapperHint() : undefined;
    return { reason, ...exit, stderr: given ?? complaint(stderr.tail()), ...(hint !== undefined && { hint }) };
  });
  if (signal?.aborted) onAbort();
  // The keeper made the sockets before it started QEMU, and the child counts as started when the keeper is: so they are not there yet.
  const connected = place === undefined ? undefined : await connectFirst(place, exited).catch(async (error: unknown) => {
    await end(); // nobody but us knows of it
    throw error;
  });
  const control = gateway && child.stdio[gateway.controlFd]!;
  const gatewayStderr = gateway && (gateway.stderrFd === undefined ? { tail: () => logTail(place!, placeNames.netLog) } : readLog(child.stdio[gateway.stderrFd]!));
  const vm: RunningVm = {
    pid: child.pid,
    accelerator,
    ports: connected ?? (child.stdio.slice(firstPortFd, firstPortFd + ports) as Duplex[]),
    ...(control !== undefined && { gateway: control, gatewayLog: () => gatewayStderr!.tail() }),
    console: () => guestConsole.tail(),
    progress: async () => ({ cpuMs: (lastCpuMs = (await childrenCpuMs(child.pid)) ?? lastCpuMs), consoleBytes: guestConsole.totalBytes }),
    exited,
    end,
    ...(connected !== undefined && {
      release: () => {
        forget();
        child.release();
        for (const stream of [...connected, child.stdio[monitorFd]!, ...(control === undefined ? [] : [control])]) stream.destroy();
      },
    }),
  };
  const giveUp = (why: unknown) => {
    // The monitor closes when QEMU ends; then how it ended is the reason, and not that.
    const error = toPyroError(why);
    if (killed || error.code === "VMM_EXITED") return;
    given ??= error.message;
    void child.end();
  };
  return { vm, qmp, giveUp };
}

/** Text that goes on: all of what was written, and its end. */
type Log = Pick<ConsoleLog, "totalBytes" | "tail">;

function readLog(stream: Readable): Log {
  const log = new ConsoleLog();
  stream.on("data", (chunk: Buffer) => log.add(chunk));
  return log;
}

/** A log that the keeper writes. Its length shows whether anything came; it begins anew at a limit, which is no end. */
function fileLog(place: string, name: string): Log {
  return {
    get totalBytes() {
      return statSync(join(place, name), { throwIfNoEntry: false })?.size ?? 0;
    },
    tail: () => logTail(place, name),
  };
}

/** Our own connection to the first port of a VM with a place; one that is closed if it ended at once. */
async function connectFirst(place: string, exited: Promise<VmExit>): Promise<Socket[]> {
  let over = false;
  void exited.then(() => (over = true));
  for (;;) {
    try {
      return [await connectIn(place, placeNames.port(0))];
    } catch (error) {
      if (over) return [new Socket().destroy()];
      if (!["ENOENT", "ECONNREFUSED"].includes(systemCode(error) ?? "")) throw error;
    }
    await sleep(1);
  }
}

/** What QEMU said, without its remark on the card that is meant to have no back end. */
function complaint(text: string): string {
  return text.split("\n").filter((line) => !/: warning: nic \S+ has no peer$/.test(line)).join("\n").slice(-maxStderrChars);
}

/** A script in QEMU's place is in QEMU's confinement, and most of what is wrong with one shows only there: its `--version` is asked outside. */
async function wrapperHint(): Promise<string | undefined> {
  const program = await findProgram(settings.qemu()).catch(() => undefined);
  const file = program === undefined ? undefined : await open(program, constants.O_RDONLY).catch(() => undefined);
  try {
    if (file === undefined || (await file.read(Buffer.alloc(2), 0, 2, 0)).buffer.toString("latin1") !== "#!") return undefined;
    return `${program} is a script. It runs in QEMU's confinement, where it can start no process ($(…), pipes) and is shown /usr, /nix/store and the like only: let it end with \`exec\` of a QEMU that is there, by its own name (no -a), or set PYRO_QEMU to QEMU itself.`;
  } catch {
    return undefined;
  } finally {
    await file?.close();
  }
}

function exitReason(exit: ChildExit, killed: boolean): VmExit["reason"] {
  if (exit.code === keeperTtlStatus) return "ttl";
  if (killed) return "killed";
  return exit.code === 0 ? "guest" : "failed";
}
