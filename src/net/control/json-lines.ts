/** JSON values over a stream, one a line, both ways; lines and what waits to be written are bounded. */
import type { Duplex } from "node:stream";

export const maxLineBytes = 1024 * 1024;
/** With more than this waiting to be read, whoever is at the other end no longer listens. */
const maxWaitingBytes = 4 * 1024 * 1024;

export class JsonLines {
  readonly #stream: Duplex;
  #parts: Buffer[] = [];
  #bytes = 0;

  /** Calls `take` with each value. A line that is too long or no JSON ends the connection. */
  constructor(stream: Duplex, take: (value: unknown) => void) {
    this.#stream = stream;
    stream.on("error", () => stream.destroy());
    stream.on("data", (chunk: Buffer) => this.#split(chunk, take));
  }

  /** How many bytes the other end has not taken. */
  get waitingBytes(): number {
    return this.#stream.writableLength;
  }

  write(value: unknown): void {
    if (this.#stream.destroyed || this.#stream.writableEnded) return;
    if (this.#stream.writableLength > maxWaitingBytes) this.#stream.destroy();
    else this.#stream.write(`${JSON.stringify(value)}\n`);
  }

  #split(chunk: Buffer, take: (value: unknown) => void): void {
    for (let at = 0; at < chunk.length && !this.#stream.destroyed; ) {
      const end = chunk.indexOf(0x0a, at);
      const part = chunk.subarray(at, end < 0 ? chunk.length : end);
      this.#bytes += part.length;
      if (this.#bytes > maxLineBytes) return void this.#stream.destroy();
      this.#parts.push(part);
      if (end < 0) return;
      const line = Buffer.concat(this.#parts, this.#bytes).toString("utf8");
      this.#parts = [];
      this.#bytes = 0;
      at = end + 1;
      const value = parse(line);
      if (value === undefined) return void this.#stream.destroy();
      take(value);
    }
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
