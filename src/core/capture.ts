/** Keeps the head and the tail of a stream of any length within a fixed number of bytes. */

export interface Captured {
  /** UTF-8, invalid bytes replaced; where bytes were dropped, a line says how many. */
  text: string;
  /** All bytes that came, kept or not. */
  totalBytes: number;
  truncated: boolean;
}

export class Capture {
  readonly #headLimit: number;
  readonly #tailLimit: number;
  readonly #head: Buffer[] = [];
  #headBytes = 0;
  #tail: Buffer[] = [];
  #tailBytes = 0;
  #totalBytes = 0;

  /** Keeps at most `limitBytes`: the first half of them from the beginning, the rest from the end. */
  constructor(limitBytes: number) {
    this.#headLimit = Math.floor(limitBytes / 2);
    this.#tailLimit = limitBytes - this.#headLimit;
  }

  add(chunk: Buffer): void {
    this.#totalBytes += chunk.length;
    const intoHead = Math.min(chunk.length, this.#headLimit - this.#headBytes);
    if (intoHead > 0) {
      this.#head.push(copy(chunk.subarray(0, intoHead)));
      this.#headBytes += intoHead;
    }
    if (intoHead === chunk.length) return;
    const rest = copy(chunk.subarray(intoHead));
    this.#tail.push(rest);
    this.#tailBytes += rest.length;
    // Let it grow to twice the limit before it is cut, so that each byte is copied once or twice and not once per chunk.
    if (this.#tailBytes > 2 * this.#tailLimit || this.#tail.length > 4096) this.#cutTail();
  }

  end(): Captured {
    this.#cutTail();
    const head = Buffer.concat(this.#head);
    const tail = Buffer.concat(this.#tail);
    const dropped = this.#totalBytes - head.length - tail.length;
    if (dropped === 0) return { text: Buffer.concat([head, tail]).toString("utf8"), totalBytes: this.#totalBytes, truncated: false };
    return { text: `${head.toString("utf8")}\n[${dropped} bytes dropped]\n${tail.toString("utf8")}`, totalBytes: this.#totalBytes, truncated: true };
  }

  #cutTail(): void {
    const whole = Buffer.concat(this.#tail);
    this.#tail = [copy(whole.subarray(Math.max(0, whole.length - this.#tailLimit)))];
    this.#tailBytes = this.#tail[0]!.length;
  }
}

/** A small view into a large buffer would keep all of that buffer alive. */
function copy(view: Buffer): Buffer {
  return Buffer.from(view);
}
