/** A command in the guest. */
import type { Readable, Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { violation } from "./codec.js";
import { encodeMessage, invalid, u16, u8, type Field, type Fields } from "./message.js";
import type { Mux } from "./mux.js";
import type { Failure } from "./stream.js";

export interface ExecSettings {
  /** Added to what the guest sets by itself. */
  env?: Record<string, string>;
  /** A path in the guest; the user's home when left out. */
  cwd?: string;
  /** `name`, `uid`, `name:group` or `uid:gid`; root when left out. */
  user?: string;
  /** A pipe as standard input; `/dev/null` when false or left out. */
  stdin?: boolean;
  /** A terminal of this size, 1 to 4,096 each way; then all output is standard output. */
  tty?: { rows: number; columns: number };
}

/** `argv` is executed as it is, `shell` is a line for the guest's login shell. */
export type ExecCommand = { argv: readonly (string | Buffer)[]; shell?: never } | { shell: string; argv?: never };

export type ExecRequest = ExecSettings & ExecCommand;

export interface ExecSuccess {
  /** 0 to 255, of a command that exited; 128 + the signal for one that a signal ended. */
  exitCode: number;
  /** Linux number of the signal that ended the command. */
  signal?: number;
  /** On the guest's clock. */
  durationMs: number;
  stdoutBytes: number;
  stderrBytes: number;
}

export type ExecOutcome =
  | ExecSuccess
  | { /** The command never ran; stage `exec` is the command's own fault, all others are the request's or the guest's. */ failure: Failure };

export type SignalScope = "process" | "group" | "all";

export interface GuestProcess {
  /** There if the request asked for it. Destroyed when the command ends first; what it did not take is dropped. */
  readonly stdin: Writable | undefined;
  /** Every byte, then the end. Not reading holds the command up (after 256 KiB) and nothing else; destroying it drops the rest. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Rejects where the command was never started. */
  readonly started: Promise<{ pid: number }>;
  /** Comes when the command has ended; `stdout` and `stderr` may still hold what was not read. Rejects with what ended the channel. */
  readonly result: Promise<ExecOutcome>;
  /** Linux number, 1 to 64; `all` takes 9 only. Nothing happens after the end. Throws INVALID_ARGUMENT. */
  signal(signal: number, scope: SignalScope): void;
  /** For a request with `tty`. Throws INVALID_ARGUMENT. */
  resize(rows: number, columns: number): void;
  /** Kills everything the command started; the result still comes. */
  cancel(): void;
}

export function exec(mux: Mux, request: ExecRequest): GuestProcess {
  const stream = mux.open(execFields(request), {
    result: ["DURATION", "BYTES_1", "BYTES_2"],
    resultOptional: ["EXIT_CODE", "EXIT_SIGNAL"],
    checkFields: checkExit,
    starts: true,
    outputs: 2,
    input: request.stdin === true,
    outputEndsAtEnd: true,
  });
  const started = stream.started.then(
    (pid) => ({ pid }),
    async (error: unknown) => {
      const result = await stream.result.catch(() => undefined);
      if (result === undefined || !("failure" in result)) throw error;
      throw new PyroError("INVALID_STATE", `The command was not started: ${result.failure.message}`);
    },
  );
  const result = stream.result.then((end): ExecOutcome => ("failure" in end ? { failure: end.failure } : outcome(end.fields)));
  started.catch(() => {});
  result.catch(() => {});
  return {
    stdin: stream.input?.writable,
    stdout: stream.outputs[0]!.readable,
    stderr: stream.outputs[1]!.readable,
    started,
    result,
    signal: (signal, scope) => stream.signal(...checkedSignal(signal, scope)),
    resize: (rows, columns) => {
      if (request.tty === undefined) throw invalid("The command has no terminal that could be resized.");
      checkSize(rows, columns);
      stream.resize(rows, columns);
    },
    cancel: () => stream.cancel(),
  };
}

const scopes: Readonly<Record<SignalScope, number>> = { process: 0, group: 1, all: 2 };

/** As the protocol has them. Throws INVALID_ARGUMENT. */
export function checkedSignal(signal: number, scope: SignalScope): [number: number, scope: number] {
  if (!Number.isInteger(signal) || signal < 1 || signal > 64) throw invalid(`The signal is ${signal}; 1 to 64 are possible.`);
  if (scope === "all" && signal !== 9) throw invalid(`Signal ${signal} can't be sent to all processes of a command, only 9 (SIGKILL) can.`);
  return [signal, scopes[scope]];
}

/** Whether the guest can be asked for this at all, for whoever has something to lose by asking. Throws INVALID_ARGUMENT. */
export function checkExec(request: ExecRequest): void {
  encodeMessage(execFields(request));
}

/** Throws INVALID_ARGUMENT. */
export function execFields(request: ExecRequest): Field[] {
  const fields: Field[] = [["KIND", u8(1)]];
  if (request.argv !== undefined) {
    if (request.argv.length === 0) throw invalid("The command is empty; name a program.");
    for (const word of request.argv) fields.push(["ARG", typeof word === "string" ? Buffer.from(word) : word]);
  } else {
    fields.push(["SHELL", Buffer.from(request.shell)]);
  }
  for (const [name, value] of Object.entries(request.env ?? {})) {
    if (name === "" || name.includes("=")) throw invalid(`The variable name ${JSON.stringify(name)} is empty or contains "=".`);
    fields.push(["ENV", Buffer.from(`${name}=${value}`)]);
  }
  for (const [name, text] of [["CWD", request.cwd], ["USER", request.user]] as const) {
    if (text === undefined) continue;
    if (typeof text !== "string") throw invalid(`${name} is no string.`);
    fields.push([name, Buffer.from(text)]);
  }
  fields.push(["STDIN", u8(request.stdin === true ? 1 : 0)]);
  if (request.tty !== undefined) {
    checkSize(request.tty.rows, request.tty.columns);
    fields.push(["TTY", Buffer.concat([u16(request.tty.rows), u16(request.tty.columns)])]);
  }
  return fields;
}

function checkSize(rows: number, columns: number): void {
  for (const size of [rows, columns]) {
    if (!Number.isInteger(size) || size < 1 || size > 4096) throw invalid(`A terminal of ${rows} rows and ${columns} columns; 1 to 4096 are possible.`);
  }
}

/** Throws PROTOCOL. */
export function checkExit(fields: Fields): void {
  if (fields.has("EXIT_CODE") === fields.has("EXIT_SIGNAL")) throw violation("RESULT without exactly one of EXIT_CODE and EXIT_SIGNAL");
  const signal = fields.get("EXIT_SIGNAL")?.[0];
  if (signal !== undefined && (signal < 1 || signal > 64)) throw violation(`RESULT with the signal ${signal}, outside 1 to 64`);
}

export function outcome(fields: Fields): ExecSuccess {
  const signal = fields.get("EXIT_SIGNAL")?.[0];
  return {
    exitCode: signal === undefined ? fields.get("EXIT_CODE")![0]! : 128 + signal,
    ...(signal === undefined ? {} : { signal }),
    durationMs: Number(fields.get("DURATION")!.readBigUInt64LE()) / 1e6,
    stdoutBytes: Number(fields.get("BYTES_1")!.readBigUInt64LE()),
    stderrBytes: Number(fields.get("BYTES_2")!.readBigUInt64LE()),
  };
}
