/** Running a program whose output is a stream and that must not outlive us; `runChild` is for short ones with small output. */
import { PassThrough, pipeline, type Duplex } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { keepChild, type ChildExit } from "../base/child.js";
import { cancelled, whenAborted } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";

export interface KeptOptions {
  signal?: AbortSignal;
  env?: Record<string, string>;
  cwd?: string;
  /** Written to standard input. */
  input?: string;
  /** Milliseconds for the whole of it. */
  timeoutMs: number;
  /** Each line of standard error, without its end, at most 4 KiB of it. */
  onLine?: (line: string) => void;
}

export interface KeptExit extends ChildExit {
  /** The last 16 KiB of standard error. */
  stderr: string;
}

/**
 * Runs `command`, hands its standard output to `take`, and returns what `take` made of it with how the program ended. When
 * either fails, the time is over or `signal` aborts, the program and all its descendants are killed before this rejects.
 */
export async function runKept<T>(command: string, args: readonly string[], options: KeptOptions, take: (stdout: AsyncIterable<Uint8Array>) => Promise<T>): Promise<{ exit: KeptExit; result: T | undefined; failure: unknown }> {
  const child = await keepChild(command, args, {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  // Read from now on: what nobody reads when a child ends, Node throws away, and `take` may open a file before it reads.
  const stdout = new PassThrough();
  pipeline(child.stdio[1]!, stdout, () => {}); // an error of one is the other's, and `take` sees it
  let stopped: PyroError | undefined;
  const stop = (reason: PyroError) => {
    stopped ??= reason;
    void child.end();
  };
  const timer = setTimeout(() => stop(new PyroError("TIMEOUT", `${command} did not end within ${options.timeoutMs / 1000} s.`)), options.timeoutMs);
  const onAbort = () => stop(cancelled(options.signal));
  const forget = whenAborted(options.signal, onAbort);
  if (options.signal?.aborted) onAbort();
  try {
    child.stdio[0]?.end(options.input);
    const stderr = keepLines(child.stdio[2]!, options.onLine);
    let failure: unknown;
    const result = await take(stdout).catch((error: unknown) => {
      failure = error;
      stdout.destroy(); // what it has left to say is of no use, and unread it would keep its end from being seen
      void child.end();
      return undefined;
    });
    const exit = await child.exited;
    if (stopped !== undefined) throw stopped;
    return { exit: { ...exit, stderr: stderr() }, result, failure };
  } finally {
    clearTimeout(timer);
    forget();
    await child.end();
  }
}

const maxLineBytes = 4096;
const maxTailBytes = 16_384;

function keepLines(stream: Duplex, onLine: ((line: string) => void) | undefined): () => string {
  let tail = "";
  let line = "";
  const decoder = new StringDecoder("utf8");
  stream.on("data", (chunk: Buffer) => {
    const text = decoder.write(chunk);
    tail = (tail + text).slice(-maxTailBytes);
    const lines = (line + text).split("\n");
    line = lines.pop()!.slice(0, maxLineBytes);
    for (const each of lines) onLine?.(each.slice(0, maxLineBytes));
  });
  return () => tail;
}

/** Reads a stream to its end and drops it. */
export async function drain(stream: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of stream) void chunk;
}

/** Reads a stream whole. Throws PROTOCOL beyond `maxBytes`; `what` names it. */
export async function readWhole(stream: AsyncIterable<Uint8Array>, maxBytes: number, what: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for await (const part of stream) {
    total += part.length;
    if (total > maxBytes) throw new PyroError("PROTOCOL", `${harmlessLine(what, 200)} has more than ${maxBytes} bytes.`);
    parts.push(part);
  }
  return Buffer.concat(parts, total);
}
