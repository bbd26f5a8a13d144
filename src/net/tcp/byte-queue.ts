/** Bytes on their way to the guest: kept until the guest has acknowledged them, read from any offset as they may have to be sent again. */

/** Shorter chunks are merged into one of this length, so that a server which sends single bytes does not cost a hundred times what it sends. */
const mergedBytes = 4096;
/** The last such chunk that nobody needs any more, for the next queue: a question and its answer would make one each time. */
let spare: Buffer | undefined;

export class ByteQueue {
  #chunks: Buffer[] = [];
  /** Index of the first chunk that is still there; the array is cut once that pays. */
  #first = 0;
  /** What of the first chunk is gone. */
  #skipped = 0;
  /** What of the last chunk is in use, if it is one of ours with room behind it. */
  #room = 0;
  #length = 0;

  /** Bytes in it. */
  get length(): number {
    return this.#length;
  }

  /** Keeps `chunk` itself if it is long: nobody may write to it any more. */
  push(chunk: Buffer): void {
    this.#length += chunk.length;
    if (chunk.length >= mergedBytes) {
      this.#room = 0;
      this.#chunks.push(chunk);
      return;
    }
    let at = 0;
    while (at < chunk.length) {
      if (this.#room === 0) {
        this.#chunks.push((spare ?? Buffer.allocUnsafeSlow(mergedBytes)).subarray(0, 0));
        spare = undefined;
        this.#room = mergedBytes;
      }
      const last = this.#chunks.at(-1)!;
      const taken = Math.min(this.#room, chunk.length - at);
      const grown = Buffer.from(last.buffer, last.byteOffset, last.length + taken);
      chunk.copy(grown, last.length, at, at + taken);
      this.#chunks[this.#chunks.length - 1] = grown;
      this.#room -= taken;
      at += taken;
    }
  }

  /** Copies `length` bytes from `offset` on, counted from the first byte that is there. */
  copyTo(target: Buffer, at: number, offset: number, length: number): void {
    let index = this.#first;
    let from = this.#skipped + offset;
    while (from >= this.#chunks[index]!.length) from -= this.#chunks[index++]!.length;
    for (const end = at + length; at < end; index++, from = 0) {
      at += this.#chunks[index]!.copy(target, at, from, Math.min(this.#chunks[index]!.length, from + end - at));
    }
  }

  /** Lets go of the first `count` bytes. */
  drop(count: number): void {
    this.#length -= count;
    this.#skipped += count;
    while (this.#first < this.#chunks.length && this.#skipped >= this.#chunks[this.#first]!.length) {
      this.#skipped -= this.#chunks[this.#first++]!.length;
    }
    if (this.#first === this.#chunks.length) {
      if (this.#room > 0) spare = this.#chunks.at(-1);
      this.#chunks = [];
      this.#first = this.#skipped = this.#room = 0;
    } else if (this.#first >= 32) {
      this.#chunks.splice(0, this.#first);
      this.#first = 0;
    }
  }
}
