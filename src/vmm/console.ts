/** A log of a guest's console: bounded, and harmless to whoever prints it. */
import { StringDecoder } from "node:string_decoder";
import { harmless as harmlessText } from "../base/harmless.js";

export const maxConsoleBytes = 64 << 10;

export class ConsoleLog {
  #chunks: Buffer[] = [];
  #kept = 0;
  #total = 0;

  /** All bytes that ever came. */
  get totalBytes(): number {
    return this.#total;
  }

  add(chunk: Buffer): void {
    this.#total += chunk.length;
    // A copy: a view would keep the whole buffer alive that it was read into.
    const copy = Buffer.from(chunk.subarray(-maxConsoleBytes));
    this.#chunks.push(copy);
    this.#kept += copy.length;
    // Cut at twice the limit, so that each byte is moved once and not once per chunk.
    if (this.#kept > 2 * maxConsoleBytes || this.#chunks.length > 4096) this.#cut();
  }

  /** The last `lines` lines, at most `maxConsoleBytes` of them. */
  tail(lines = 40): string {
    this.#cut();
    return harmless(this.#chunks[0] ?? Buffer.alloc(0)).split("\n").slice(-lines - 1).join("\n").trim();
  }

  #cut(): void {
    const whole = Buffer.concat(this.#chunks).subarray(-maxConsoleBytes);
    this.#chunks = [Buffer.from(whole)];
    this.#kept = whole.length;
  }
}

/**
 * Bytes of a stranger as text that a terminal only prints: colour and cursor sequences go, all else as `base/harmless.ts` has
 * it. Invalid UTF-8 is replaced.
 */
export function harmless(bytes: Buffer): string {
  const text = new StringDecoder("utf8").end(bytes);
  // eslint-disable-next-line no-control-regex -- an escape sequence begins with one
  return harmlessText(text.replace(/\r+\n/g, "\n").replace(/\u001b\[[0-9;?]{0,32}[A-Za-z]/g, ""));
}
