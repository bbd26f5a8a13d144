import { checkSignal, cancelled } from "../base/deadline.js";

/**
 * Takes exact numbers of bytes from a stream of chunks. Nothing is joined unless it lies across two chunks, and content is
 * handed on as parts of the chunks it came in.
 */
export class ByteSource {
  /** Bytes taken so far. */
  offset = 0;
  private chunk: Uint8Array = new Uint8Array(0);
  private at = 0;
  private readonly iterator: AsyncIterator<Uint8Array>;
  private readonly signal: AbortSignal | undefined;
  private ended = false;

  constructor(source: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined) {
    this.iterator = source[Symbol.asyncIterator]();
    this.signal = signal;
  }

  /** The next `length` bytes if they are at hand: no waiting, no copy. */
  takeNow(length: number): Buffer | undefined {
    if (this.chunk.length - this.at < length) return undefined;
    const start = this.at;
    this.at += length;
    this.offset += length;
    return Buffer.from(this.chunk.buffer, this.chunk.byteOffset + start, length);
  }

  /** The next `length` bytes, or what is left of them at the end of the stream. `length` must be small: it is allocated. */
  async take(length: number): Promise<Buffer> {
    const now = this.takeNow(length);
    if (now !== undefined) return now;
    const whole = Buffer.alloc(length);
    let filled = 0;
    while (filled < length) {
      const part = this.partNow(length - filled);
      if (part !== undefined) {
        whole.set(part, filled);
        filled += part.length;
      } else if (!(await this.fill())) {
        break;
      }
    }
    return whole.subarray(0, filled);
  }

  /** Up to `length` bytes out of the current chunk; undefined when it is used up (then `fill`). */
  partNow(length: number): Uint8Array | undefined {
    const available = Math.min(this.chunk.length - this.at, length);
    if (available === 0) return undefined;
    const part = this.chunk.subarray(this.at, this.at + available);
    this.at += available;
    this.offset += available;
    return part;
  }

  /** Waits for the next chunk. False at the end of the stream. The current chunk must be used up. */
  async fill(): Promise<boolean> {
    if (this.ended) return false;
    const next = await this.next();
    if (next.done === true) {
      this.ended = true;
      return false;
    }
    this.chunk = next.value;
    this.at = 0;
    return true;
  }

  /** Tells the stream that no more is wanted. */
  async close(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    // A source that hangs in `next` would hang in `return` too: it is told, not waited for, once the caller gave up.
    const closing = Promise.resolve(this.iterator.return?.());
    closing.catch(() => {});
    if (!this.signal?.aborted) await closing;
  }

  private next(): Promise<IteratorResult<Uint8Array>> {
    const { signal } = this;
    if (signal === undefined) return this.iterator.next();
    checkSignal(signal);
    // Not Promise.race: a reaction left on one long-lived promise for every chunk would never be freed.
    return new Promise((resolve, reject) => {
      const onAbort = () => reject(cancelled(signal));
      signal.addEventListener("abort", onAbort, { once: true });
      const settled = () => signal.removeEventListener("abort", onAbort);
      this.iterator.next().then(
        (result) => (settled(), resolve(result)),
        (error: unknown) => (settled(), reject(error)),
      );
    });
  }
}
