/** Takes bytes as they come and gives lines, each at most so long. What is not asked for yet stays as it came. */
export class Lines {
  readonly #maxBytes: number;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  /** How many chunks are known to hold no end of a line, and their bytes. */
  #searched = 0;
  #searchedBytes = 0;
  /** A line that is too long was told of, and its rest is on its way. */
  #dropping = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** The next line without its end, `tooLong` once for one that is, undefined where more has to come. What follows the last end is no line. */
  take(): Buffer | "tooLong" | undefined {
    for (let chunk = this.#chunks[this.#searched]; chunk !== undefined; chunk = this.#chunks[this.#searched]) {
      const end = chunk.indexOf(newline);
      if (this.#dropping) {
        this.#dropping = end < 0;
        this.#forget(end < 0 ? chunk.length : end + 1);
      } else if (this.#searchedBytes + (end < 0 ? chunk.length : end) > this.#maxBytes) {
        this.#dropping = true;
        this.#forget(0);
        return "tooLong";
      } else if (end < 0) {
        this.#searched++;
        this.#searchedBytes += chunk.length;
      } else {
        const line = Buffer.concat([...this.#chunks.slice(0, this.#searched), chunk.subarray(0, end)]);
        this.#forget(end + 1);
        return line;
      }
    }
    return undefined;
  }

  /** What was searched, and that many bytes of the chunk behind it. */
  #forget(bytes: number): void {
    const rest = this.#chunks[this.#searched]!.subarray(bytes);
    this.#chunks.splice(0, this.#searched + 1, ...(rest.length === 0 ? [] : [rest]));
    this.#bytes -= this.#searchedBytes + bytes;
    this.#searched = 0;
    this.#searchedBytes = 0;
  }
}

const newline = 10;
