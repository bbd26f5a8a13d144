/** Background jobs of a VM: commands that go on when whoever started them is gone, until they or the VM end. */
import { randomBytes } from "node:crypto";
import type { Readable } from "node:stream";
import { PyroError } from "../base/error.js";
import { cancelled, checkSignal, whenAborted } from "../base/deadline.js";
import { nearest } from "../base/nearest.js";
import type { JobRecord, SignalScope } from "../channel/index.js";
import { breakable } from "./break-off.js";
import { checkCommand, type Command } from "./command.js";
import { guestCommand, lossReason, type AnsweringVm, type Surroundings } from "./exec.js";
import { signalName, toSignalNumber } from "./signals.js";

export interface JobRequest extends Surroundings {
  command: Command;
  /** 1 to 64 of `[a-z0-9-]`; a new one when left out. */
  name?: string;
}

export interface Job {
  name: string;
  /** In the guest. */
  pid: number;
  /** The beginning of its words, harmless for a terminal. */
  command: string[];
  /** RFC 3339, by the guest's clock. */
  startedAt: string;
  /** Until now or, of one that has ended, in all; milliseconds. */
  durationMs: number;
  stdoutBytes: number;
  stderrBytes: number;
  state: "running" | "exited";
  /** Once it has ended: 0 to 255; 128+n when signal n ended it. */
  exitCode?: number;
  /** Name of the signal that ended it. */
  signal?: string;
}

export interface JobExit {
  exitCode: number;
  signal?: string;
  durationMs: number;
  /** True totals, bytes. */
  stdoutBytes: number;
  stderrBytes: number;
  /** Of these, what the guest no longer had when its turn came. */
  stdoutDroppedBytes: number;
  stderrDroppedBytes: number;
}

export interface AttachedJob {
  /** What the guest still has of the output (the last 256 KiB), then what comes. Not reading does not hold the job up: what is too old is skipped and counted. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Comes with the job's end. Rejects with NOT_FOUND, CANCELLED after `detach`, GUEST_LOST, VMM_EXITED, TIMEOUT. */
  readonly exit: Promise<JobExit>;
  /** The job goes on. */
  detach(): void;
}

/** Resolves when the command runs. Throws EXISTS, NOT_FOUND or DENIED (the command), INVALID_ARGUMENT, INVALID_STATE (64 jobs run), GUEST_LOST, CANCELLED. */
export async function startJob(vm: AnsweringVm, request: JobRequest, options: { signal?: AbortSignal } = {}): Promise<{ name: string; pid: number }> {
  const name = request.name ?? `job-${randomBytes(4).toString("hex")}`;
  checkName(name);
  checkCommand(request.command);
  const { pid } = await vm.channel.startJob(name, guestCommand(request, vm.config, vm.variables), options);
  return { name, pid };
}

/** Those that run and those that ended, the oldest first; the guest keeps 64. */
export async function listJobs(vm: AnsweringVm, options: { signal?: AbortSignal } = {}): Promise<Job[]> {
  return (await vm.channel.listJobs(options)).map(jobOf);
}

/** Throws NOT_FOUND with the nearest names. */
export async function attachJob(vm: AnsweringVm, name: string, signal?: AbortSignal): Promise<AttachedJob> {
  checkSignal(signal);
  await findJob(vm, name, signal);
  checkSignal(signal);
  const attached = vm.channel.attachJob(name);
  const attachment = breakable(attached.result, [attached.stdout, attached.stderr], () => attached.detach());
  const forget = whenAborted(signal, () => attachment.breakOff());
  const exit = attachment.result
    .then(
      (outcome): JobExit => {
        if (outcome === undefined) throw cancelled(signal);
        const { exitCode, signal: ended, ...rest } = outcome;
        return {
          exitCode,
          ...(ended !== undefined && { signal: signalName(ended) }),
          durationMs: Math.round(rest.durationMs),
          stdoutBytes: rest.stdoutBytes + rest.stdoutDroppedBytes,
          stderrBytes: rest.stderrBytes + rest.stderrDroppedBytes,
          stdoutDroppedBytes: rest.stdoutDroppedBytes,
          stderrDroppedBytes: rest.stderrDroppedBytes,
        };
      },
      async (error: unknown) => Promise.reject((await lossReason(vm, error)) as Error),
    )
    .finally(forget);
  exit.catch(() => {}); // nobody has to wait for it
  return { stdout: attached.stdout, stderr: attached.stderr, exit, detach: () => attachment.breakOff() };
}

/** By name (`SIGTERM`, the default) or Linux number; to its process group unless another scope is given; `all` takes SIGKILL only, and also reaches what the command left behind. Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE. */
export async function killJob(vm: AnsweringVm, name: string, signal: string | number = "SIGTERM", scope: SignalScope = "group", options: { signal?: AbortSignal } = {}): Promise<void> {
  const number = toSignalNumber(signal);
  await findJob(vm, name, options.signal);
  await vm.channel.killJob(name, number, scope, options);
}

/** Of a job that has ended. Throws NOT_FOUND, INVALID_STATE. */
export async function forgetJob(vm: AnsweringVm, name: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  await findJob(vm, name, options.signal);
  await vm.channel.forgetJob(name, options);
}

async function findJob(vm: AnsweringVm, name: string, signal: AbortSignal | undefined): Promise<void> {
  checkName(name);
  const names = (await vm.channel.listJobs(signal && { signal })).map((each) => each.name);
  if (names.includes(name)) return;
  const near = nearest(name, names);
  throw new PyroError("NOT_FOUND", `The VM ${vm.vmId} has no job ${name}.`, { hint: near.length > 0 ? `Did you mean ${near.join(" or ")}?` : `\`pyro vm jobs ${vm.vmId}\` shows those that are there.` });
}

function checkName(name: string): void {
  if (!/^[a-z0-9-]{1,64}$/.test(name)) throw new PyroError("INVALID_ARGUMENT", `The job's name is ${JSON.stringify(name.slice(0, 100))}; it is 1 to 64 of a-z, 0-9 and "-".`);
}

function jobOf({ startedNs, end, durationMs, ...job }: JobRecord): Job {
  return {
    ...job,
    durationMs: Math.round(durationMs),
    startedAt: timeOf(startedNs),
    state: end === undefined ? "running" : "exited",
    ...(end !== undefined && { exitCode: end.exitCode, ...(end.signal !== undefined && { signal: signalName(end.signal) }) }),
  };
}

/** A guest's clock may say anything. */
function timeOf(ns: bigint): string {
  const date = new Date(Number(ns / 1_000_000n));
  return Number.isNaN(date.getTime()) ? new Date(0).toISOString() : date.toISOString();
}
