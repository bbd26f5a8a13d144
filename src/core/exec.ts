/** One command in a running guest, from request to result. */
import { performance } from "node:perf_hooks";
import type { Readable, Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { cancelled, follow, whenAborted } from "../base/deadline.js";
import type { GuestProcess, ExecOutcome, ExecRequest as GuestExecRequest } from "../channel/index.js";
import type { ImageConfig } from "../environments/index.js";
import type { GatewayControl } from "../net/index.js";
import type { RunningVm } from "../vmm/index.js";
import { breakable } from "./break-off.js";
import { Capture, type Captured } from "./capture.js";
import { checkCommand, type Command } from "./command.js";
import { inImage } from "./image-config.js";
import { checkLimit, limits } from "./limits.js";
import type { PublishedPort } from "./network.js";
import type { Refusal, RefusalWatch } from "./refusals.js";
import { signalName } from "./signals.js";
import type { StartedVm } from "./start.js";

/** A VM whose guest answers, whoever started it. */
export type AnsweringVm = Pick<StartedVm, "vmId" | "accelerator" | "channel" | "bootMs" | "config" | "variables" | "publishedPorts"> & { vm: Pick<RunningVm, "exited" | "console">; openGateway?: OpenGateway };

/** A connection to the gateway of a VM with a network, for a while. Throws NOT_FOUND where it is gone. `isReady`: false while it lets nothing through yet. */
export type OpenGateway = { (): Promise<{ control: GatewayControl; release: () => void }>; isReady?: () => boolean };

/** A command as it runs, wherever it does. */
export type RunningCommand = Pick<GuestProcess, "stdin" | "stdout" | "stderr" | "result" | "cancel"> & { signal(signal: number, scope: "group"): void; resize?: GuestProcess["resize"] };

/** What runs commands: a VM whose guest answers, or the host where the caller allowed that. */
export interface Runner {
  vmId: string;
  channel: { exec(request: GuestExecRequest): RunningCommand };
  bootMs: number;
  /** What a guest runs under. */
  accelerator?: "kvm" | "tcg";
  /** `guest` when left out. */
  executionMode?: "host_compat";
  /** What whoever asked has to know. */
  warning?: string;
  vm?: AnsweringVm["vm"];
  /** What the image that it runs from says of its commands. */
  config?: ImageConfig;
  /** Of every command here, unless it says otherwise. */
  variables?: Readonly<Record<string, string>>;
  openGateway?: OpenGateway;
  publishedPorts?: readonly PublishedPort[];
}

/** In what surroundings a command runs. */
export interface Surroundings {
  /** Added to what the guest sets by itself: PATH, HOME, USER, LOGNAME, SHELL, LANG. */
  env?: Readonly<Record<string, string>>;
  /** A path in the guest; the user's home when left out. */
  cwd?: string;
  /** `name`, `uid`, `name:group` or `uid:gid`; root when left out. */
  user?: string;
}

export interface TerminalSize {
  rows: number;
  columns: number;
}

/** A terminal of the caller's, for a command to be typed on. */
export interface CommandTerminal {
  /** Right before the command starts: from now on what is typed is its own. Resolves to the size, 1 to 4,096 each way; `resize` is told another one. */
  open(resize: (size: TerminalSize) => void): Promise<TerminalSize>;
  /** When the command has ended, or can't be waited for any more: then there is no result. */
  close(result: ExecResult | undefined): Promise<void>;
}

export interface ExecRequest extends Surroundings {
  command: Command;
  timeoutSeconds: number;
  /** Most bytes kept of each output stream. */
  captureBytes: number;
  /** Standard input; none when left out. Read only as fast as the command takes it. */
  stdin?: Readable;
  /** The command gets a terminal in the guest that looks like this one. Then all output is standard output, and input is typed. */
  terminal?: CommandTerminal;
  /** Where output goes as it comes, byte for byte, besides being captured. A slow one slows the command down. */
  stdout?: Writable;
  stderr?: Writable;
}

export interface ExecOptions {
  signal?: AbortSignal;
  /** Called once with the means to send the command's process group a signal (Linux number). */
  onStarted?: (sendSignal: (signal: number) => void) => void;
  /** Called when the guest's network refuses something while the command runs; for the same thing once. */
  onRefused?: (refusal: Refusal) => void;
}

export interface ExecResult {
  vmId: string;
  environment: string;
  executionMode: "guest" | "host_compat";
  /** What the guest ran under; absent where there was none. */
  accelerator?: "kvm" | "tcg";
  /** Of a command that ran on the host: what was not isolated, and why. */
  warning?: string;
  /** 0 to 255; 128+n when signal n ended the command; 126 and 127 as shells have them when it could not be executed. */
  exitCode: number;
  /** Name of the signal that ended the command. */
  signal?: string;
  /** UTF-8, invalid bytes replaced; head and tail where it was too long. */
  stdout: string;
  stderr: string;
  /** True totals, bytes. */
  stdoutBytes: number;
  stderrBytes: number;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
  timedOut: boolean;
  /** The command alone, milliseconds. */
  durationMs: number;
  /** Until the VM was ready, milliseconds. */
  bootMs: number;
  /** What the network refused the guest meanwhile; absent where it refused nothing. At most 32. */
  refusals?: Refusal[];
  /** The guest's ports on this host, those that were chosen here included; absent where there are none. */
  publishedPorts?: readonly PublishedPort[];
}

/** What the time-out of a command is where none is given: somebody who sits at a terminal is not to be cut off by a default; the VM's time to live does it. */
export function timeoutOf({ timeoutSeconds, terminal }: { timeoutSeconds?: number | undefined; terminal?: CommandTerminal | undefined }): number {
  return checkLimit("timeoutSeconds", timeoutSeconds ?? (terminal && limits.timeoutSeconds.max));
}

export async function execInVm(vm: Runner, environment: string, request: ExecRequest, options: ExecOptions = {}): Promise<ExecResult> {
  checkCommand(request.command);
  checkLimit("timeoutSeconds", request.timeoutSeconds);
  checkLimit("captureBytes", request.captureBytes);
  const { terminal } = request;
  const watch = vm.openGateway && (await watched(vm.openGateway, options.onRefused));
  let guest: RunningCommand | undefined;
  let result: ExecResult | undefined;
  try {
    const tty = await terminal?.open(({ rows, columns }) => guest?.resize?.(rows, columns));
    guest = vm.channel.exec({ ...guestCommand(request, vm.config, vm.variables), stdin: request.stdin !== undefined, ...(tty && { tty }) });
    result = await attend(vm, guest, environment, request, options);
    const refusals = (await watch?.end()) ?? [];
    return refusals.length === 0 ? result : { ...result, refusals };
  } finally {
    void watch?.end();
    await terminal?.close(result);
  }
}

async function watched(openGateway: OpenGateway, onRefused: ExecOptions["onRefused"]): Promise<RefusalWatch> {
  return (await import("./refusals.js")).watchRefusals(openGateway(), onRefused, openGateway.isReady);
}

async function attend(vm: Runner, guest: RunningCommand, environment: string, request: ExecRequest, options: ExecOptions): Promise<ExecResult> {
  const begin = performance.now();
  options.onStarted?.((signal) => guest.signal(signal, "group"));
  const out = forward(guest.stdout, new Capture(request.captureBytes), request.stdout);
  const err = forward(guest.stderr, new Capture(request.captureBytes), request.stderr);
  const unreadable = follow(options.signal);
  if (request.stdin !== undefined) feed(request.stdin, guest.stdin!, (error) => unreadable.abort(error));

  const outputDone = Promise.all([out.done, err.done]);
  outputDone.catch(() => {}); // the command's result tells the cause
  const { outcome, timedOut } = await untilDone(vm, guest, outputDone, request.timeoutSeconds, unreadable.signal).finally(() => unreadable.abort());
  const elapsedMs = performance.now() - begin;
  const exit = exitOf(outcome);
  // As a shell would, for a command that it could not execute.
  if (exit.complaint !== undefined) err.add(Buffer.from(`pyro: ${exit.complaint}${request.terminal === undefined ? "" : "\r"}\n`));
  const stdout = out.captured();
  const stderr = err.captured();
  return {
    vmId: vm.vmId,
    environment,
    executionMode: vm.executionMode ?? "guest",
    ...(vm.accelerator !== undefined && { accelerator: vm.accelerator }),
    ...(vm.warning !== undefined && { warning: vm.warning }),
    exitCode: exit.exitCode,
    ...(exit.signal !== undefined && { signal: exit.signal }),
    stdout: stdout.text,
    stderr: stderr.text,
    stdoutBytes: stdout.totalBytes,
    stderrBytes: stderr.totalBytes,
    stdoutTruncated: stdout.truncated,
    stderrTruncated: stderr.truncated,
    timedOut,
    // The guest's own clock is the better one, unless it says what can't be.
    durationMs: Math.round(outcome !== undefined && "durationMs" in outcome ? Math.min(outcome.durationMs, elapsedMs) : elapsedMs),
    bootMs: Math.round(vm.bootMs),
    ...(vm.publishedPorts !== undefined && { publishedPorts: vm.publishedPorts }),
  };
}

/** A command as the channel has it. */
export function guestCommand(request: Surroundings & { command: Command }, config?: ImageConfig, variables?: Readonly<Record<string, string>>): GuestExecRequest {
  const { command, env, cwd, user } = inImage(variables === undefined ? request : { ...request, env: { ...variables, ...request.env } }, config);
  return {
    ...(typeof command === "string" ? { shell: command } : { argv: command.map((word) => (typeof word === "string" ? word : Buffer.from(word))) }),
    ...(env !== undefined && { env: { ...env } }),
    ...(cwd !== undefined && { cwd }),
    ...(user !== undefined && { user }),
  };
}

/**
 * Waits for the command's end, then for all its output to have been passed on. The time-out is the command's alone: once it
 * has ended, a slow reader of its output costs nothing but time. The caller's signal and the VM's end come first if they do.
 */
async function untilDone(
  vm: Runner,
  guest: RunningCommand,
  outputDone: Promise<unknown>,
  timeoutSeconds: number,
  signal: AbortSignal | undefined,
): Promise<{ outcome: ExecOutcome | undefined; timedOut: boolean }> {
  let timedOut = false;
  const running = breakable(guest.result, [], () => guest.cancel());
  const timer = setTimeout(() => {
    timedOut = true;
    running.breakOff();
  }, timeoutSeconds * 1000);
  let forget = () => {};
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = () => reject(cancelled(signal));
    forget = whenAborted(signal, onAbort);
    if (signal?.aborted) onAbort();
  });
  aborted.catch(() => {}); // when another cause came first
  try {
    const outcome = await Promise.race([running.result, aborted]);
    clearTimeout(timer);
    if (outcome !== undefined) await Promise.race([outputDone, aborted]);
    return { outcome, timedOut };
  } catch (error) {
    guest.cancel(); // the VM may live on without its caller
    if (timedOut && !signal?.aborted) return { outcome: undefined, timedOut };
    throw await lossReason(vm, error);
  } finally {
    clearTimeout(timer);
    forget();
  }
}

/** A channel that broke because the VM ended: why it ended is the better answer. */
export async function lossReason(vm: Runner, error: unknown): Promise<unknown> {
  if (vm.vm === undefined || !(error instanceof PyroError) || (error.code !== "GUEST_LOST" && error.code !== "VMM_EXITED")) return error;
  const exit = await Promise.race([vm.vm.exited, new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 1000))]);
  if (exit === undefined) return error;
  if (exit.reason === "ttl") {
    return new PyroError("TIMEOUT", "The VM's time to live ended before the command did.", { hint: "Give a larger --ttl-seconds (ttl_seconds).", cause: error });
  }
  if (exit.reason === "guest") {
    return new PyroError("GUEST_LOST", "The guest powered itself off or crashed while the command ran.", { hint: `The end of its console:\n${vm.vm.console()}`, cause: error });
  }
  if (exit.reason === "killed") {
    return new PyroError("GUEST_LOST", "The VM was stopped, deleted or closed while the command ran, or ran its one command for another caller.", { cause: error });
  }
  return new PyroError("VMM_EXITED", `QEMU ended while the command ran (status ${exit.code ?? exit.signal})${exit.stderr === "" ? "." : `: ${exit.stderr}`}`, {
    hint: vm.accelerator === "kvm" ? "Run it again; if that ends so too, PYRO_ACCELERATOR=tcg does without KVM. `pyro doctor` tells what this host lacks." : "`pyro doctor` tells what this host lacks.",
    cause: error,
  });
}

export function exitOf(outcome: ExecOutcome | undefined): { exitCode: number; signal?: string; complaint?: string } {
  // Killed for its time-out by a guest that did not answer any more.
  if (outcome === undefined) return { exitCode: 137, signal: "SIGKILL" };
  if ("failure" in outcome) {
    const { errno, stage, message } = outcome.failure;
    if (stage !== "exec") {
      throw new PyroError("INVALID_STATE", `Guest exec is unavailable: ${stage} failed: ${message}`, { hint: `The command was not run.${nextSteps[stage] ?? ""}` });
    }
    return { exitCode: errno === ENOENT ? 127 : 126, complaint: message };
  }
  if (outcome.signal !== undefined) return { exitCode: 128 + outcome.signal, signal: signalName(outcome.signal) };
  return { exitCode: outcome.exitCode };
}

const ENOENT = 2;

/** Where it is the caller that can do something about it. */
const nextSteps: Readonly<Record<string, string>> = {
  chdir: " Give a --workdir (cwd) that is there.",
  user: " Give a --user (user) of the guest's /etc/passwd, or a number.",
};

/** Passes a stream on to `sink` (if there is one) and into the capture; reads no faster than the sink takes it. */
function forward(source: Readable, capture: Capture, sink: Writable | undefined): { done: Promise<void>; add: (chunk: Buffer) => boolean; captured: () => Captured } {
  const add = (chunk: Buffer) => {
    capture.add(chunk);
    return sink === undefined || sink.write(chunk);
  };
  const done = (async () => {
    for await (const chunk of source as AsyncIterable<Buffer>) if (!add(chunk)) await drained(sink!);
  })();
  return { done, add, captured: () => capture.end() };
}

/** Resolves when `sink` takes more; a sink that broke takes everything (its owner hears of the error and decides). */
function drained(sink: Writable): Promise<void> {
  if (sink.destroyed || sink.writableEnded || sink.errored) return Promise.resolve();
  return new Promise((resolve) => {
    const settle = () => {
      sink.off("drain", settle);
      sink.off("close", settle);
      sink.off("error", settle);
      resolve();
    };
    sink.on("drain", settle);
    sink.on("close", settle);
    sink.on("error", settle);
  });
}

/** Standard input. A command that does not read it all is no error; a source that breaks is not the same as its end. */
function feed(source: Readable, sink: Writable, onUnreadable: (error: PyroError) => void): void {
  sink.on("error", () => source.unpipe(sink));
  source.on("error", (error) => {
    onUnreadable(new PyroError("INVALID_ARGUMENT", `Standard input can't be read: ${error.message}`, { cause: error, hint: "Give </dev/null where the command needs none." }));
  });
  source.pipe(sink);
}
