/** A command in a guest that its caller talks to while it runs. */
import type { Readable, Writable } from "node:stream";
import { checkSignal, whenAborted } from "../base/deadline.js";
import type { SignalScope } from "../channel/index.js";
import { breakable } from "./break-off.js";
import { checkCommand, type Command } from "./command.js";
import { exitOf, guestCommand, lossReason, type AnsweringVm, type Surroundings } from "./exec.js";
import { checkLimit } from "./limits.js";
import { toSignalNumber } from "./signals.js";

export interface SpawnRequest extends Surroundings {
  command: Command;
  /** A pipe as standard input; otherwise it is empty. */
  stdin?: boolean;
  /** A terminal of this size, 1 to 4,096 each way: all output comes as standard output, and input is typed. */
  tty?: { rows: number; columns: number };
  /** 1 to 86,400; none when left out. Then the command is killed with all it started. */
  timeoutSeconds?: number;
}

export interface ProcessExit {
  /** 0 to 255; 128+n when signal n ended the command; 126 and 127 as shells have them when it could not be executed. */
  exitCode: number;
  /** Name of the signal that ended it. */
  signal?: string;
  timedOut: boolean;
  /** On the guest's clock, milliseconds. */
  durationMs: number;
  /** True totals, bytes. */
  stdoutBytes: number;
  stderrBytes: number;
}

export interface SpawnedProcess {
  /** There if it was asked for, or with a terminal. What the command does not take is dropped at its end. */
  readonly stdin: Writable | undefined;
  /** Byte for byte, then the end. Not reading holds the command up after 256 KiB, and nothing else. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Its process id in the guest. Rejects where it could not be started, or was ended before. */
  readonly started: Promise<{ pid: number }>;
  /** Resolves when the command has ended, or after a time-out 3 s later where the guest does not answer any more; its output may still hold what was not read. Rejects with GUEST_LOST, VMM_EXITED, TIMEOUT, CANCELLED. */
  readonly exit: Promise<ProcessExit>;
  /** By name (`SIGTERM`) or Linux number; to its process group unless another scope is given; `all` takes SIGKILL only. Throws INVALID_ARGUMENT. */
  kill(signal?: string | number, scope?: SignalScope): void;
  /** Throws INVALID_ARGUMENT for a command without a terminal. */
  resize(rows: number, columns: number): void;
}

/** `signal` kills all that the command started. Throws INVALID_ARGUMENT, INVALID_STATE, CANCELLED. */
export function spawnInVm(vm: AnsweringVm, request: SpawnRequest, signal?: AbortSignal): SpawnedProcess {
  checkSignal(signal);
  checkCommand(request.command);
  const timeoutSeconds = request.timeoutSeconds === undefined ? undefined : checkLimit("timeoutSeconds", request.timeoutSeconds);
  const stdin = request.stdin === true || request.tty !== undefined;
  const guest = vm.channel.exec({ ...guestCommand(request, vm.config, vm.variables), stdin, ...(request.tty !== undefined && { tty: request.tty }) });
  const running = breakable(guest.result, [guest.stdout, guest.stderr], () => guest.cancel());
  let timedOut = false;
  let killedByUs = false;
  const timer = timeoutSeconds === undefined ? undefined : setTimeout(() => {
    timedOut = true;
    running.breakOff();
  }, timeoutSeconds * 1000);
  const onAbort = () => {
    killedByUs = true;
    running.breakOff();
  };
  const forget = whenAborted(signal, onAbort);
  const exit = running.result
    .then(
      (outcome): ProcessExit => {
        if (killedByUs) checkSignal(signal);
        const { exitCode, signal: ended } = exitOf(outcome);
        const { durationMs, stdoutBytes, stderrBytes } = outcome === undefined || "failure" in outcome ? { durationMs: 0, stdoutBytes: 0, stderrBytes: 0 } : outcome;
        return { exitCode, ...(ended !== undefined && { signal: ended }), timedOut, durationMs: Math.round(durationMs), stdoutBytes, stderrBytes };
      },
      async (error: unknown) => Promise.reject((await lossReason(vm, error)) as Error),
    )
    .finally(() => {
      clearTimeout(timer);
      forget();
    });
  const started = running.unlessGivenUp(guest.started);
  for (const each of [exit, started]) each.catch(() => {}); // nobody has to wait for them
  return {
    stdin: guest.stdin,
    stdout: guest.stdout,
    stderr: guest.stderr,
    started,
    exit,
    kill: (name = "SIGTERM", scope = "group") => guest.signal(toSignalNumber(name), scope),
    resize: (rows, columns) => guest.resize(rows, columns),
  };
}
