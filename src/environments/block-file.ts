/** A file that is written front to back in blocks, in few large writes that run while the next bytes are gathered. */
import { createHash } from "node:crypto";
import { open, rm, type FileHandle } from "node:fs/promises";
import { checkSignal } from "../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../base/error.js";

export const blockBytes = 4096;
const bufferBytes = 1 << 20;
/** One is filled while the others are written. */
const maxBuffers = 3;

export class BlockFile {
  /** Bytes appended so far, those included that are still on their way to the disk. */
  length = 0;
  private buffer: Buffer = Buffer.allocUnsafeSlow(bufferBytes);
  private filled = 0;
  /** A small file never needs more than the first buffer. */
  private allocated = 1;
  private readonly free: Buffer[] = [];
  private readonly writing = new Set<Promise<void>>();
  private failure: unknown;

  private constructor(
    readonly path: string,
    private readonly file: FileHandle,
  ) {}

  /** Makes the file. Throws EXISTS if something is there. */
  static async create(path: string): Promise<BlockFile> {
    try {
      return new BlockFile(path, await open(path, "wx+", 0o644));
    } catch (error) {
      throw systemCode(error) === "EEXIST" ? new PyroError("EXISTS", `${path} is already there.`, { cause: error }) : toPyroError(error);
    }
  }

  /** Copies `data` to the end. Throws DISK_FULL, also for an earlier write that has failed since. */
  async append(data: Uint8Array): Promise<void> {
    for (let from = 0; from < data.length; ) {
      const count = Math.min(bufferBytes - this.filled, data.length - from);
      this.buffer.set(count === data.length ? data : data.subarray(from, from + count), this.filled);
      from += count;
      await this.advance(count);
    }
  }

  async zeros(count: number): Promise<void> {
    for (let left = count; left > 0; ) {
      const now = Math.min(bufferBytes - this.filled, left);
      this.buffer.fill(0, this.filled, this.filled + now);
      left -= now;
      await this.advance(now);
    }
  }

  /** Fills with zeros up to the next multiple of `unit`, which is a power of two. */
  async align(unit: number): Promise<void> {
    await this.zeros(-this.length & (unit - 1));
  }

  /** Waits for all that was appended, then writes `first` over the beginning. */
  async finish(first: Uint8Array): Promise<void> {
    await this.flush();
    await Promise.all(this.writing);
    this.checkFailure();
    await this.writeAll(first, 0);
    this.checkFailure();
  }

  /** `sha256:…` of the whole file, read again: the first block is written last, so it can't be had on the way. */
  async digest(signal?: AbortSignal): Promise<string> {
    const hash = createHash("sha256");
    let spare = this.takeBuffer();
    let reading = this.file.read(this.buffer, 0, bufferBytes, 0);
    for (let position = 0; position < this.length; ) {
      const { bytesRead, buffer } = await reading;
      checkSignal(signal); // here, where no read is under way that nobody would wait for
      if (bytesRead === 0) throw new PyroError("INTERNAL", `${this.path} became shorter while it was written.`);
      position += bytesRead;
      if (position < this.length) reading = this.file.read(spare, 0, bufferBytes, position);
      hash.update(buffer.subarray(0, bytesRead));
      spare = buffer;
    }
    return `sha256:${hash.digest("hex")}`;
  }

  /** Until the bytes are on the disk. */
  async sync(): Promise<void> {
    try {
      await this.file.datasync();
    } catch (error) {
      throw toPyroError(error);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.writing);
    await this.file.close();
  }

  /** Ends everything and removes the file. */
  async discard(): Promise<void> {
    await this.close().catch(() => {});
    await rm(this.path, { force: true });
  }

  private async advance(count: number): Promise<void> {
    this.filled += count;
    this.length += count;
    if (this.filled === bufferBytes) await this.flush();
  }

  /** Sends the buffer on its way and takes a free one, waiting for it if need be. */
  private async flush(): Promise<void> {
    if (this.filled > 0) {
      const full = this.buffer;
      const work = this.writeAll(full.subarray(0, this.filled), this.length - this.filled).then(() => {
        this.free.push(full);
        this.writing.delete(work);
      });
      this.writing.add(work);
      if (this.free.length === 0 && this.allocated === maxBuffers) await Promise.race(this.writing);
      this.buffer = this.takeBuffer();
      this.filled = 0;
    }
    this.checkFailure();
  }

  private takeBuffer(): Buffer {
    const free = this.free.pop();
    if (free !== undefined) return free;
    this.allocated++;
    return Buffer.allocUnsafeSlow(bufferBytes);
  }

  /** Never rejects: the first failure is kept for whoever appends next. */
  private async writeAll(data: Uint8Array, position: number): Promise<void> {
    try {
      for (let done = 0; done < data.length; ) {
        const { bytesWritten } = await this.file.write(data, done, data.length - done, position + done);
        done += bytesWritten;
      }
    } catch (error) {
      this.failure ??= error;
    }
  }

  private checkFailure(): void {
    if (this.failure !== undefined) throw toPyroError(this.failure);
  }
}
