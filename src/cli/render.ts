/** The only writer to the terminal. Standard output is for results and the guest; our own lines go to standard error. */
import { writeSync } from "node:fs";
import { Writable } from "node:stream";
import { PyroError, systemCode, toPyroError } from "../base/error.js";
import { harmless, harmlessLine } from "../base/harmless.js";
import { printJson } from "../base/json.js";
import { settings } from "../base/settings.js";
import type { TerminalSize } from "../core/index.js";

export interface Output {
  /** A result, to standard output, as it is: foreign text in it has to be made harmless before. */
  result(text: string): void;
  /** A result as JSON, to standard output. */
  json(value: unknown): void;
  /** A line of our own, to standard error. */
  line(text: string): void;
  /** Lines that the next ones replace where standard error is a terminal, as many as there is room for; nothing elsewhere. */
  status(...lines: string[]): void;
  error(error: PyroError, asJson: boolean): void;
  bold(text: string): string;
  red(text: string): string;
  green(text: string): string;
  /** Of the terminal that output goes to, as it is now; 24 rows and 80 columns where there is none that knows. */
  windowSize(): TerminalSize;
  /** Where the guest's output goes, byte for byte. */
  readonly guestStdout: Writable;
  readonly guestStderr: Writable;
  /** Standard output for a protocol alone: whatever else is written there from now on, by whichever package, goes to standard error. */
  protocol(): Writable;
  /** Aborts when output can't be written any more; the reason is an `OutputLost`. */
  readonly lost: AbortSignal;
  /** Resolves when everything written has left this process, or can't any more, or `enough` aborts. */
  flush(enough: AbortSignal): Promise<void>;
}

/** What was written is not where it should be. A reader that went away is what SIGPIPE ends other programs for. */
export class OutputLost extends PyroError {
  readonly readerGone: boolean;
  constructor(name: string, error: Error) {
    const { code, message } = toPyroError(error);
    super(code, `${name} could not be written: ${message}`, { cause: error, hint: "What was written to it is not complete." });
    this.readerGone = systemCode(error) === "EPIPE";
  }
}

export function createOutput(): Output {
  const lost = new AbortController();
  process.stdout.on("error", (error) => lost.abort(new OutputLost("Standard output", error)));
  // Whoever closed standard error does not want to know; that it is full, whoever reads it later has to.
  process.stderr.on("error", (error) => {
    if (systemCode(error) !== "EPIPE") lost.abort(new OutputLost("Standard error", error));
  });
  const interactive = process.stderr.isTTY === true;
  const colour = (code: number, stream: NodeJS.WriteStream) => (text: string) => (stream.isTTY === true && !settings.noColor() ? `\u001b[${code}m${text}\u001b[0m` : text);
  let shown = 0;
  const clearStatus = () => {
    if (shown > 0) process.stderr.write(`\r\u001b[K${"\u001b[A\u001b[K".repeat(shown - 1)}`);
    shown = 0;
  };
  return {
    result: (text) => {
      clearStatus();
      process.stdout.write(text);
    },
    json: (value) => {
      clearStatus();
      process.stdout.write(printJson(value));
    },
    line: (text) => {
      clearStatus();
      process.stderr.write(`${harmless(text)}\n`);
    },
    status: (...lines) => {
      if (!interactive || lines.length === 0) return;
      clearStatus();
      // A line that wrapped, or scrolled away, could not be replaced.
      const { columns = 80, rows = 24 } = process.stderr;
      const fitting = lines.slice(-Math.max(1, rows - 1)).map((line) => harmlessLine(line, 1000).slice(0, Math.max(20, columns - 1)));
      process.stderr.write(fitting.join("\n"));
      shown = fitting.length;
    },
    error: (error, asJson) => {
      clearStatus();
      if (asJson) {
        process.stderr.write(printJson({ error: error.toJSON() }));
        return;
      }
      process.stderr.write(`${colour(31, process.stderr)("error:")} ${harmless(error.message)}\n`);
      if (error.hint !== undefined) process.stderr.write(`${colour(1, process.stderr)("hint:")} ${harmless(error.hint)}\n`);
    },
    bold: colour(1, process.stdout),
    red: colour(31, process.stdout),
    green: colour(32, process.stdout),
    windowSize: () => windowSize([process.stdout, process.stderr]),
    guestStdout: process.stdout,
    guestStderr: process.stderr,
    protocol: () => {
      const write = process.stdout.write.bind(process.stdout);
      process.stdout.write = process.stderr.write.bind(process.stderr);
      return new Writable({ write: (chunk: Buffer, _encoding, done) => void write(chunk, done) });
    },
    lost: lost.signal,
    flush: (enough) => flush([process.stdout, process.stderr], enough),
  };
}

/** Within what a guest is told: a terminal that does not know its size has 0 rows. */
function windowSize(streams: readonly NodeJS.WriteStream[]): TerminalSize {
  const [columns, rows] = streams.find((each) => each.isTTY)?.getWindowSize() ?? [0, 0];
  return { rows: Math.min(rows || 24, 4096), columns: Math.min(columns || 80, 4096) };
}

async function flush(streams: readonly Writable[], enough: AbortSignal): Promise<void> {
  const written = streams.map((stream) => new Promise<void>((resolve) => {
    if (stream.destroyed || stream.errored !== null) return resolve();
    stream.once("error", () => resolve());
    stream.write("", () => resolve());
  }));
  const given = new Promise<void>((resolve) => {
    // Time for the last line where there is a reader; none for one that is stuck.
    const soon = () => setTimeout(resolve, 200);
    if (enough.aborted) soon();
    else enough.addEventListener("abort", soon, { once: true });
  });
  await Promise.race([Promise.all(written), given]);
}

/** For diagnostics: written at once, so that the last line before a crash is not lost. */
export function debugLine(text: string): void {
  try {
    writeSync(2, `[debug] ${text}\n`);
  } catch {
    // standard error is gone or full; diagnostics are not worth failing for
  }
}

/** 1234567 as `1.2 MB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** How far a time (RFC 3339) is from `nowMs`, in its largest whole unit: `in 45 s`, `in 9 min`, `in 23 h`, `in 6 d`. */
export function formatUntil(time: string, nowMs = Date.now()): string {
  const seconds = Math.max(0, Math.floor((Date.parse(time) - nowMs) / 1000));
  if (seconds < 60) return `in ${seconds} s`;
  if (seconds < 3600) return `in ${Math.floor(seconds / 60)} min`;
  return seconds < 48 * 3600 ? `in ${Math.floor(seconds / 3600)} h` : `in ${Math.floor(seconds / 86_400)} d`;
}

/** Columns padded to their widest cell, two spaces between; foreign text in them is made harmless. */
export function formatTable(given: readonly (readonly string[])[]): string {
  const rows = given.map((row) => row.map((cell) => harmlessLine(cell, 1000)));
  const widths = rows.reduce<number[]>((most, row) => row.map((cell, column) => Math.max(most[column] ?? 0, cell.length)), []);
  return rows.map((row) => `${row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!))).join("  ")}\n`).join("");
}
