/** What a guest sends, on its way into a socket of the host: gathered while the socket is busy, so that many small segments cost few writes. */
import type { Writable } from "node:stream";

const leastBlockBytes = 2_048;
const maxBlockBytes = 65_536;
/** The last block of the least size that was written, for the next question of whichever connection. */
let spare: Buffer | undefined;

export class HostWriter {
  readonly #target: Writable;
  readonly #consumed: (bytes: number) => void;
  #blocks: { bytes: Buffer; used: number }[] = [];
  /** What of the guest's bytes is in the blocks; what is written may be longer or shorter than what it said. */
  #credit = 0;
  #writing = false;
  #soon = false;
  #ending = false;
  #closed = false;

  /** `consumed` is told how much of what the guest sent the socket has taken. */
  constructor(target: Writable, consumed: (bytes: number) => void) {
    this.#target = target;
    this.#consumed = consumed;
  }

  /** Copies `bytes`; `credit` is how much of what the guest sent they stand for. */
  push(bytes: Buffer, start = 0, end = bytes.length, credit = end - start): void {
    this.#credit += credit;
    while (start < end) {
      let block = this.#blocks.at(-1);
      if (block === undefined || block.used === block.bytes.length) {
        const wanted = Math.max(leastBlockBytes, end - start, (block?.bytes.length ?? 0) * 2);
        this.#blocks.push((block = { bytes: newBlock(Math.min(maxBlockBytes, wanted)), used: 0 }));
      }
      const copied = bytes.copy(block.bytes, block.used, start, end);
      block.used += copied;
      start += copied;
    }
    this.#flushSoon();
  }

  /** Ends the socket's own half once everything is written. */
  end(): void {
    this.#ending = true;
    this.#flushSoon();
  }

  /** Lets go of what was not written. */
  close(): void {
    this.#closed = true;
    this.#blocks = [];
  }

  /** Once for all segments that came together. */
  #flushSoon(): void {
    if (this.#soon) return;
    this.#soon = true;
    process.nextTick(() => {
      this.#soon = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#closed || this.#writing) return;
    if (this.#blocks.length === 0) {
      if (this.#ending && !this.#target.writableEnded) this.#target.end();
      return;
    }
    const blocks = this.#blocks;
    const credit = this.#credit;
    this.#blocks = [];
    this.#credit = 0;
    this.#writing = true;
    if (blocks.length > 1) this.#target.cork();
    blocks.forEach(({ bytes, used }, index) => {
      const isLast = index === blocks.length - 1;
      this.#target.write(bytes.subarray(0, used), isLast ? (error) => this.#written(error, credit, bytes) : undefined);
    });
    if (blocks.length > 1) this.#target.uncork();
  }

  #written(error: Error | null | undefined, credit: number, last: Buffer): void {
    this.#writing = false;
    if (error == null && last.length === leastBlockBytes) spare = last;
    if (this.#closed || error != null) return; // the socket's own event tells
    this.#consumed(credit);
    this.#flush();
  }
}

function newBlock(lengthBytes: number): Buffer {
  if (spare?.length !== lengthBytes) return Buffer.allocUnsafeSlow(lengthBytes);
  const block = spare;
  spare = undefined;
  return block;
}
