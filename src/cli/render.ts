/** The only writer to the terminal. Standard output is for results and the guest; our own lines go to standard error. */
import { writeSync } from "node:fs";
import type { Writable } from "node:stream";
import { settings } from "../base/settings.js";
import { PyroError } from "../base/error.js";
import { printJson } from "../base/json.js";

export interface Output {
  /** A result, to standard output. */
  result(text: string): void;
  /** A line of our own, to standard error. */
  line(text: string): void;
  /** A line that the next one replaces where standard error is a terminal; nothing elsewhere. */
  status(text: string): void;
  error(error: PyroError, asJson: boolean): void;
  bold(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  readonly interactive: boolean;
  /** Where the guest's output goes, byte for byte. */
  readonly guestStdout: Writable;
  readonly guestStderr: Writable;
}

export function createOutput(): Output {
  const interactive = process.stderr.isTTY === true;
  const colour = (code: number, stream: NodeJS.WriteStream) => (text: string) => (stream.isTTY === true && !settings.noColor() ? `\u001b[${code}m${text}\u001b[0m` : text);
  let statusShown = false;
  const clearStatus = () => {
    if (statusShown) process.stderr.write("\r\u001b[K");
    statusShown = false;
  };
  return {
    interactive,
    result: (text) => {
      clearStatus();
      process.stdout.write(text);
    },
    line: (text) => {
      clearStatus();
      process.stderr.write(`${text}\n`);
    },
    status: (text) => {
      if (!interactive) return;
      clearStatus();
      process.stderr.write(text.slice(0, Math.max(20, (process.stderr.columns ?? 80) - 1)));
      statusShown = true;
    },
    error: (error, asJson) => {
      clearStatus();
      if (asJson) {
        process.stderr.write(printJson({ error: error.toJSON() }));
        return;
      }
      process.stderr.write(`${colour(31, process.stderr)("error:")} ${error.message}\n`);
      if (error.hint !== undefined) process.stderr.write(`${colour(1, process.stderr)("hint:")} ${error.hint}\n`);
    },
    bold: colour(1, process.stdout),
    red: colour(31, process.stdout),
    green: colour(32, process.stdout),
    yellow: colour(33, process.stdout),
    guestStdout: process.stdout,
    guestStderr: process.stderr,
  };
}

/** Resolves when everything written has left this process, or can't any more. */
export async function flushOutput(): Promise<void> {
  await Promise.all([process.stdout, process.stderr].map((stream) => new Promise<void>((resolve) => {
    if (stream.destroyed || stream.errored !== null) return resolve();
    stream.once("error", () => resolve());
    stream.write("", () => resolve());
  })));
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

/** Columns padded to their widest cell, two spaces between; the last column is left as it is. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>((most, row) => row.map((cell, column) => Math.max(most[column] ?? 0, cell.length)), []);
  return rows.map((row) => `${row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!))).join("  ")}\n`).join("");
}
