/** Zstandard (RFC 8878): for Node versions that lack it (before 22.15), and of what the others need to read it in full; with a bound on memory. */
import { PyroError } from "../../base/error.js";

/** Bytes of a frame's window: what the zstd program takes without being told to take more. */
export const maxZstdWindowBytes = 128 << 20;

/** A piece this small is a few megabytes when it comes out, whatever is in it. */
const pieceBytes = 4096;

/** Throws ENVIRONMENT_INVALID. */
export async function* unzstd(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import("fzstd");
  const windows = new WindowCheck();
  let out: Uint8Array[] = [];
  const decoder = new Decompress((chunk) => out.push(chunk));
  const push = (piece: Uint8Array, final: boolean) => {
    try {
      decoder.push(piece, final);
    } catch (error) {
      throw damaged(error);
    }
  };
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; at += pieceBytes) {
      const piece = chunk.subarray(at, at + pieceBytes);
      for (let taken = 0; taken < piece.length; ) taken += windows.take(piece.subarray(taken));
      push(piece, false);
      yield* out;
      out = [];
    }
  }
  if (!windows.isBetweenFrames) throw damaged();
}

/**
 * The same bytes, cut where frames end. Node's own decoder takes the end of the first frame for the end of all, unless what it is given ends there too;
 * layers that are pulled by parts (zstd:chunked) have a frame for each file. Throws ENVIRONMENT_INVALID for what ends within a frame.
 */
export async function* cutAtFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const frames = new WindowCheck();
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; ) {
      const taken = frames.take(chunk.subarray(at));
      yield chunk.subarray(at, at + taken);
      at += taken;
    }
  }
  if (!frames.isBetweenFrames) throw damaged();
}

function damaged(cause?: unknown): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", "Its zstd data is damaged.", { cause });
}

/**
 * Walks over frames and blocks without reading what is in them. The decoder makes room for a frame's window as soon as it sees its header:
 * 2 GiB for a few bytes.
 */
export class WindowCheck {
  /** What is read now, its bytes so far, and how many of them are wanted. */
  private state: "magic" | "skippable" | "descriptor" | "header" | "block" = "magic";
  private head: number[] = [];
  private wanted = 4;
  /** Bytes to be passed over before what comes next. */
  private skip = 0;
  private checksum = false;

  get isBetweenFrames(): boolean {
    return this.state === "magic" && this.head.length === 0 && this.skip === 0;
  }

  /** Goes on until a frame ends, or `bytes` do; returns how many of them that were. */
  take(bytes: Uint8Array): number {
    for (let at = 0; at < bytes.length; ) {
      if (this.skip > 0) {
        const now = Math.min(this.skip, bytes.length - at);
        this.skip -= now;
        at += now;
      } else {
        this.head.push(bytes[at++]!);
        if (this.head.length === this.wanted) this.step();
      }
      if (this.isBetweenFrames) return at;
    }
    return bytes.length;
  }

  private step(): void {
    const { head } = this;
    this.head = [];
    switch (this.state) {
      case "magic": {
        const magic = little(head);
        if (magic === 0xfd2fb528) return this.next("descriptor", 1);
        if (magic >= 0x184d2a50 && magic <= 0x184d2a5f) return this.next("skippable", 4);
        throw damaged();
      }
      case "skippable":
        this.skip = little(head);
        return this.next("magic", 4);
      case "descriptor": {
        const descriptor = head[0]!;
        this.checksum = (descriptor & 4) !== 0;
        const single = (descriptor >> 5) & 1;
        const sizeBytes = [single, 2, 4, 8][descriptor >> 6]!;
        this.head = [descriptor];
        return this.next("header", 1 + 1 - single + [0, 1, 2, 4][descriptor & 3]! + sizeBytes);
      }
      case "header":
        this.checkWindow(head);
        return this.next("block", 3);
      case "block": {
        const block = little(head);
        const isLast = (block & 1) !== 0;
        const size = block >> 3;
        this.skip = ((block >> 1) & 3) === 1 ? 1 : size; // a block of one repeated byte has that byte alone
        if (isLast && this.checksum) this.skip += 4;
        return this.next(isLast ? "magic" : "block", isLast ? 4 : 3);
      }
    }
  }

  private checkWindow(header: readonly number[]): void {
    const descriptor = header[0]!;
    const single = (descriptor >> 5) & 1;
    const sizeAt = 1 + 1 - single + [0, 1, 2, 4][descriptor & 3]!;
    const window = single === 1 ? little(header.slice(sizeAt)) + (descriptor >> 6 === 1 ? 256 : 0) : 2 ** (10 + (header[1]! >> 3)) * (1 + (header[1]! & 7) / 8);
    if (window > maxZstdWindowBytes) throw new PyroError("ENVIRONMENT_INVALID", `Its zstd data wants a window of ${window} bytes, over the limit maxZstdWindowBytes (${maxZstdWindowBytes}).`, { hint: "Compress it without --long or --ultra." });
  }

  private next(state: WindowCheck["state"], wanted: number): void {
    this.state = state;
    this.wanted = wanted;
    if (this.head.length === wanted) this.step();
  }
}

function little(bytes: readonly number[]): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}
