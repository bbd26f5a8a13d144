/** Background jobs: commands in the guest that belong to no connection and outlive them all. */
import type { Readable } from "node:stream";
import { checkSignal } from "../base/deadline.js";
import { answerOf, failureError } from "./answer.js";
import { violation } from "./codec.js";
import { harmlessText, invalid, u8, type Field, type Fields } from "./message.js";
import type { Mux } from "./mux.js";
import { checkExit, checkedSignal, execFields, outcome, type ExecCommand, type ExecSettings, type ExecSuccess, type SignalScope } from "./process.js";

/** Jobs that a guest keeps; when another one starts, the oldest that has ended goes. */
export const MAX_JOBS = 64;
/** Kept of each output for whoever attaches later. */
export const JOB_RING_BYTES = 262_144;

/** A command without standard input and terminal. */
export type JobRequest = Pick<ExecSettings, "env" | "cwd" | "user"> & ExecCommand;

export interface JobRecord {
  name: string;
  pid: number;
  /** The first 256 bytes of its words, harmless for a terminal; a shell's line is one word. */
  command: string[];
  /** On the guest's clock, nanoseconds since 1970. */
  startedNs: bigint;
  /** Up to now or, when it has ended, in all. */
  durationMs: number;
  stdoutBytes: number;
  stderrBytes: number;
  /** Left out while it runs. `exitCode` and `signal` as in `ExecOutcome`. */
  end?: { exitCode: number; signal?: number };
}

/** How a job ended, and what of its output was no longer kept when its turn came, or never read fast enough. */
export type JobOutcome = ExecSuccess & { stdoutDroppedBytes: number; stderrDroppedBytes: number };

export interface AttachedJob {
  /** What is kept of the output, then what comes. Not reading doesn't hold the job up: what is over 256 KiB old is skipped and counted. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Rejects with NOT_FOUND where there is no such job. */
  readonly started: Promise<{ pid: number }>;
  /** Comes when the job has ended. Rejects with NOT_FOUND, CANCELLED after `detach`, or what ended the channel. */
  readonly result: Promise<JobOutcome>;
  /** As `GuestProcess.signal`. */
  signal(signal: number, scope: SignalScope): void;
  /** The job goes on. */
  detach(): void;
}

/**
 * Resolves when the command runs. Rejects with EXISTS for a name that is taken, NOT_FOUND or DENIED for a command that could not be executed, INVALID_STATE where
 * MAX_JOBS run already, and with what ends the channel.
 */
export async function startJob(mux: Mux, name: string, request: JobRequest, options: { signal?: AbortSignal } = {}): Promise<{ pid: number }> {
  checkSignal(options.signal);
  if ("stdin" in request || "tty" in request) throw invalid("A job has neither standard input nor a terminal.");
  const stream = mux.open([...execFields(request), ["JOB", nameBytes(name)]], { result: [], starts: true });
  await answerOf(stream, `start the job ${name}`, options.signal);
  return { pid: await stream.started };
}

/** Oldest first. */
export function jobsOf(fields: Fields): JobRecord[] {
  const bytes = fields.get("JOB_LIST")!;
  const jobs: JobRecord[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (jobs.length === MAX_JOBS) throw violation(`over ${MAX_JOBS} jobs (MAX_JOBS)`);
    const { job, size } = parseJob(bytes.subarray(at));
    jobs.push(job);
    at += size;
  }
  return jobs;
}

function parseJob(bytes: Buffer): { job: JobRecord; size: number } {
  const nameEnd = 1 + bytes[0]!;
  const commandBegin = nameEnd + 2;
  const commandEnd = bytes.length < commandBegin ? Infinity : commandBegin + bytes.readUInt16LE(nameEnd);
  if (bytes.length < commandEnd + 38) throw violation("a list of jobs that breaks off");
  const name = bytes.toString("latin1", 1, nameEnd);
  if (!namePattern.test(name)) throw violation("a job with a name that none can have");
  if (commandEnd - commandBegin > 256) throw violation("a job with a command of over 256 bytes");
  const rest = bytes.subarray(commandEnd);
  const state = rest[4]!;
  const code = rest[5]!;
  if (state > 2 || (state === 0 && code !== 0) || (state === 2 && (code < 1 || code > 64))) throw violation(`a job in the state ${state} with the code ${code}`);
  const job: JobRecord = {
    name,
    pid: rest.readUInt32LE(0),
    command: bytes.toString("latin1", commandBegin, commandEnd).split("\0").map((word) => harmlessText(Buffer.from(word, "latin1"))),
    startedNs: rest.readBigInt64LE(6),
    durationMs: Number(rest.readBigUInt64LE(14)) / 1e6,
    stdoutBytes: Number(rest.readBigUInt64LE(22)),
    stderrBytes: Number(rest.readBigUInt64LE(30)),
    ...(state === 0 ? {} : { end: state === 1 ? { exitCode: code } : { exitCode: 128 + code, signal: code } }),
  };
  return { job, size: commandEnd + 38 };
}

/** Any number may be attached at once. Throws INVALID_ARGUMENT and what ended the channel. */
export function attachJob(mux: Mux, name: string): AttachedJob {
  const stream = mux.open([["KIND", u8(19)], ["JOB", nameBytes(name)]], {
    result: ["DURATION", "BYTES_1", "BYTES_2", "DROPPED_1", "DROPPED_2"],
    resultOptional: ["EXIT_CODE", "EXIT_SIGNAL"],
    checkFields: checkExit,
    starts: true,
    outputs: 2,
    outputEndsAtEnd: true,
  });
  const result = stream.result.then((end): JobOutcome => {
    if ("failure" in end) throw failureError(end.failure, `attach to the job ${name}`);
    return { ...outcome(end.fields), stdoutDroppedBytes: droppedOf(end.fields, "DROPPED_1"), stderrDroppedBytes: droppedOf(end.fields, "DROPPED_2") };
  });
  const started = stream.started.then(
    (pid) => ({ pid }),
    async (error: unknown) => {
      await result; // its error says more
      throw error;
    },
  );
  started.catch(() => {});
  result.catch(() => {});
  return {
    stdout: stream.outputs[0]!.readable,
    stderr: stream.outputs[1]!.readable,
    started,
    result,
    signal: (signal, scope) => stream.signal(...checkedSignal(signal, scope)),
    detach: () => stream.cancel(),
  };
}

function droppedOf(fields: Fields, name: "DROPPED_1" | "DROPPED_2"): number {
  return Number(fields.get(name)!.readBigUInt64LE());
}

export function killJobFields(name: string, signal: number, scope: SignalScope): Field[] {
  const [number, scopeNumber] = checkedSignal(signal, scope);
  return [["KIND", u8(20)], ["JOB", nameBytes(name)], ["SIGNAL", u8(number)], ["SCOPE", u8(scopeNumber)]];
}

export function forgetJobFields(name: string): Field[] {
  return [["KIND", u8(21)], ["JOB", nameBytes(name)]];
}

const namePattern = /^[a-z0-9-]{1,64}$/;

function nameBytes(name: string): Buffer {
  if (!namePattern.test(name)) throw invalid(`The job's name is ${JSON.stringify(name)}; 1 to 64 of a to z, 0 to 9 and "-" are possible.`);
  return Buffer.from(name);
}
