/** A log of a guest's console: bounded, and harmless to whoever prints it. */
import { StringDecoder } from "node:string_decoder";

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
 * Text of a stranger as text that a terminal only prints: colour and cursor sequences go, other control characters (C0, C1,
 * DEL) and those that turn the direction of writing become `\xNN` or `\u{N}`; newline and tab stay. Invalid UTF-8 is replaced.
 */
export function harmless(bytes: Buffer): string {
  return new StringDecoder("utf8")
    .end(bytes)
    .replace(/\r+\n/g, "\n")
    .replace(/\u001b\[[0-9;?]{0,32}[A-Za-z]/g, "")
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`)
    .replace(/[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (character) => `\\u{${character.charCodeAt(0).toString(16)}}`);
}
