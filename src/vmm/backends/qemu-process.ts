/** QEMU as a process: under the keeper, with its monitor, console and ports attached. */
import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import type { Duplex, Readable } from "node:stream";
import { keepChild, keeperTtlStatus, type ChildExit } from "../../base/child.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { settings } from "../../base/settings.js";
import { ConsoleLog } from "../console.js";
import { childrenCpuMs } from "../process-time.js";
import { Qmp } from "../qmp.js";
import type { Accelerator, RunningVm, VmExit, VmSpec } from "../vmm.js";
import { consoleFd, Descriptors, firstPortFd, monitorFd } from "./qemu-command.js";

const maxPorts = 8;
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
  if (!Number.isInteger(count) || count < 1 || count > maxPorts) throw new PyroError("INVALID_ARGUMENT", `A VM with ${count} ports; allowed are 1 to ${maxPorts}.`);
}

/** Starts QEMU with these words and descriptors; it has copies of the descriptors when this resolves. */
export async function launch(args: readonly string[], stdio: Descriptors, spec: VmSpec, accelerator: Accelerator, signal?: AbortSignal): Promise<Process> {
  const child = await keepChild(settings.qemu(), args, {
    stdio: stdio.list,
    graceMs: 0,
    ...(spec.ttlSeconds !== undefined && { ttlSeconds: spec.ttlSeconds }),
    ...(spec.lockShared !== undefined && { lockShared: spec.lockShared }),
  });
  return attach(child, accelerator, spec.ports ?? 1, signal);
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

function attach(child: Awaited<ReturnType<typeof keepChild>>, accelerator: Accelerator, portCount: number, signal?: AbortSignal): Process {
  const guestConsole = new ConsoleLog();
  child.stdio[consoleFd]!.on("data", (chunk: Buffer) => guestConsole.add(chunk));
  const stderr = new ConsoleLog();
  (child.stdio[2] as Readable).on("data", (chunk: Buffer) => stderr.add(chunk));
  const qmp = new Qmp(child.stdio[monitorFd]!);
  let killed = false;
  let given: string | undefined;
  let lastCpuMs: number | undefined;
  const end = async () => {
    killed = true;
    await child.end();
  };
  const onAbort = () => void end();
  signal?.addEventListener("abort", onAbort, { once: true });
  const exited = child.exited.then((exit): VmExit => {
    signal?.removeEventListener("abort", onAbort);
    return { reason: given === undefined ? exitReason(exit, killed) : "failed", ...exit, stderr: given ?? complaint(stderr.tail()) };
  });
  if (signal?.aborted) onAbort();
  const vm: RunningVm = {
    pid: child.pid,
    accelerator,
    ports: child.stdio.slice(firstPortFd, firstPortFd + portCount) as Duplex[],
    console: () => guestConsole.tail(),
    progress: async () => ({ cpuMs: (lastCpuMs = (await childrenCpuMs(child.pid)) ?? lastCpuMs), consoleBytes: guestConsole.totalBytes }),
    exited,
    end,
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

/** What QEMU said, without its remark on the card that is meant to have no back end. */
function complaint(text: string): string {
  return text.split("\n").filter((line) => !/: warning: nic \S+ has no peer$/.test(line)).join("\n").slice(-maxStderrChars);
}

function exitReason(exit: ChildExit, killed: boolean): VmExit["reason"] {
  if (exit.code === keeperTtlStatus) return "ttl";
  if (killed) return "killed";
  return exit.code === 0 ? "guest" : "failed";
}
