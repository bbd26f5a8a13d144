/** A file that is written front to back in blocks, in few large writes that run while the next bytes are gathered. */
import { open, rm, type FileHandle } from "node:fs/promises";
import { createHash } from "node:crypto";
import { checkSignal } from "../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../base/error.js";

export const blockBytes = 4096;
const bufferBytes = 1 << 20;
const buffers = 3;

export class BlockFile {
  /** Bytes appended so far, those included that are still on their way to the disk. */
  length = 0;
  private buffer: Buffer = Buffer.allocUnsafeSlow(bufferBytes);
  private filled = 0;
  private readonly free: Buffer[] = Array.from({ length: buffers - 1 }, () => Buffer.allocUnsafeSlow(bufferBytes));
  private readonly writing: Promise<void>[] = [];
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

  /** Takes as much of `data` as fits without waiting and says how much; call `drain` when it was not all. */
  appendNow(data: Uint8Array, from: number): number {
    const count = Math.min(bufferBytes - this.filled, data.length - from);
    this.buffer.set(from === 0 && count === data.length ? data : data.subarray(from, from + count), this.filled);
    this.filled += count;
    this.length += count;
    return count;
  }

  async append(data: Uint8Array): Promise<void> {
    for (let from = 0; from < data.length; ) {
      from += this.appendNow(data, from);
      if (this.filled === bufferBytes) await this.drain();
    }
  }

  /** Fills with zeros up to the next multiple of `unit`, which is a power of two. */
  async align(unit: number): Promise<void> {
    await this.zeros(-this.length & (unit - 1));
  }

  async zeros(count: number): Promise<void> {
    for (let left = count; left > 0; ) {
      const now = Math.min(bufferBytes - this.filled, left);
      this.buffer.fill(0, this.filled, this.filled + now);
      this.filled += now;
      this.length += now;
      left -= now;
      if (this.filled === bufferBytes) await this.drain();
    }
  }

  /** Sends the buffer on its way and takes a free one, waiting for it if need be. */
  async drain(): Promise<void> {
    if (this.filled > 0) {
      const full = this.buffer;
      const position = this.length - this.filled;
      const work = this.writeAll(full.subarray(0, this.filled), position).then(
        () => void this.free.push(full),
        (error: unknown) => {
          this.failure ??= error;
          this.free.push(full);
        },
      );
      this.writing.push(work);
      while (this.free.length === 0) await this.writing.shift();
      this.buffer = this.free.pop()!;
      this.filled = 0;
    }
    if (this.failure !== undefined) throw toPyroError(this.failure);
  }

  /** Waits for all that was appended, then writes `first` over the beginning. */
  async finish(first: Uint8Array): Promise<void> {
    await this.drain();
    await Promise.all(this.writing.splice(0));
    if (this.failure !== undefined) throw toPyroError(this.failure);
    try {
      await this.writeAll(first, 0);
    } catch (error) {
      throw toPyroError(error);
    }
  }

  /** `sha256:…` of the whole file, read again: the first block is written last, so it can't be had on the way. */
  async digest(signal?: AbortSignal): Promise<string> {
    const hash = createHash("sha256");
    let reading = this.file.read(this.buffer, 0, bufferBytes, 0);
    let spare = this.free.pop()!;
    for (let position = 0; position < this.length; ) {
      checkSignal(signal);
      const { bytesRead, buffer } = await reading;
      if (bytesRead === 0) throw new PyroError("INTERNAL", `${this.path} became shorter while it was written.`);
      position += bytesRead;
      const next = spare;
      spare = buffer;
      if (position < this.length) reading = this.file.read(next, 0, bufferBytes, position);
      hash.update(buffer.subarray(0, bytesRead));
    }
    return `sha256:${hash.digest("hex")}`;
  }

  async sync(): Promise<void> {
    await this.file.datasync();
  }

  async close(): Promise<void> {
    await Promise.all(this.writing.splice(0));
    await this.file.close();
  }

  /** Ends everything and removes the file. */
  async discard(): Promise<void> {
    await this.close().catch(() => {});
    await rm(this.path, { force: true });
  }

  private async writeAll(data: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const { bytesWritten } = await this.file.write(data, done, data.length - done, position + done);
      done += bytesWritten;
    }
  }
}
