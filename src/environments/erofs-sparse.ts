/** Sparse files: chunks of a power of two of blocks, each somewhere in the image or a hole (erofs.rst, "Chunk-based files"). */
import { PyroError } from "../base/error.js";
import { blockBytes, type BlockFile } from "./block-file.js";
import type { Extent } from "./tar-sparse.js";

/** `EROFS_CHUNK_FORMAT_BLKBITS_MASK` has five bits; a chunk of 2^(12+20) bytes is more than any file needs. */
const maxChunkBits = 20;

/** The chunk size with which data, its padding and the map of chunks together are smallest. */
export function chooseChunkBits(extents: readonly Extent[], sizeBytes: number): { chunkBits: number; dataBytes: number; mapEntries: number } {
  let best: { chunkBits: number; dataBytes: number; mapEntries: number } | undefined;
  for (let chunkBits = 0; chunkBits <= maxChunkBits; chunkBits++) {
    const chunkBytes = blockBytes * 2 ** chunkBits;
    let chunks = 0;
    let last = -1;
    for (const { offset, length } of extents) {
      const from = Math.max(Math.floor(offset / chunkBytes), last + 1);
      last = Math.floor((offset + length - 1) / chunkBytes);
      chunks += last - from + 1;
    }
    const candidate = { chunkBits, dataBytes: chunks * chunkBytes, mapEntries: Math.ceil(sizeBytes / chunkBytes) };
    if (best === undefined || candidate.dataBytes + candidate.mapEntries * 4 < best.dataBytes + best.mapEntries * 4) best = candidate;
  }
  return best!;
}

/** Takes the extents' bytes one after the other and puts them into chunks at the image's end. */
export class SparseWriter {
  private readonly chunks: Int32Array;
  private readonly chunkBytes: number;
  /** How far into the file the image has its bytes, and the end of the chunk that is open there. */
  private at = 0;
  private chunkEnd = 0;
  private extent = 0;
  private extentDone = 0;

  constructor(
    private readonly file: BlockFile,
    private readonly sizeBytes: number,
    chunkBits: number,
    private readonly extents: readonly Extent[],
  ) {
    this.chunkBytes = blockBytes * 2 ** chunkBits;
    this.chunks = new Int32Array(Math.ceil(sizeBytes / this.chunkBytes)).fill(-1);
  }

  async append(part: Uint8Array): Promise<void> {
    for (let from = 0; from < part.length; ) {
      const extent = this.extents[this.extent];
      if (extent === undefined) throw new PyroError("INTERNAL", "A sparse file has more data than extents.");
      if (this.extentDone === 0) await this.seek(extent.offset);
      else if (this.at === this.chunkEnd) this.open(this.at);
      const count = Math.min(part.length - from, extent.length - this.extentDone, this.chunkEnd - this.at);
      if (count <= 0) throw new PyroError("INTERNAL", "A sparse file's chunks and extents do not fit each other."); // never a loop without an end
      await this.file.append(part.subarray(from, from + count));
      from += count;
      this.at += count;
      this.extentDone += count;
      if (this.extentDone === extent.length) {
        this.extent++;
        this.extentDone = 0;
      }
    }
  }

  /** Fills up the last chunk and returns the map: block addresses, -1 for holes. */
  async finish(): Promise<Int32Array> {
    await this.closeChunk();
    return this.chunks;
  }

  private async seek(offset: number): Promise<void> {
    if (offset >= this.chunkEnd) {
      await this.closeChunk();
      this.open(Math.floor(offset / this.chunkBytes) * this.chunkBytes);
    }
    await this.file.zeros(offset - this.at);
    this.at = offset;
  }

  private open(start: number): void {
    this.chunks[start / this.chunkBytes] = this.file.length / blockBytes;
    this.at = start;
    this.chunkEnd = start + this.chunkBytes;
  }

  /** The last chunk of a file only needs the blocks up to the file's end. */
  private async closeChunk(): Promise<void> {
    const end = Math.min(this.chunkEnd, Math.ceil(this.sizeBytes / blockBytes) * blockBytes);
    if (end > this.at) await this.file.zeros(end - this.at);
    this.at = Math.max(this.at, end);
  }
}
