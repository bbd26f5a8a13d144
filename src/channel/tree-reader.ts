/** Bytes from a guest to the entries of a tree, with limits on all of it. Pure: any source of bytes will do. */
import { Buffer } from "node:buffer";
import { PyroError } from "../base/error.js";
import { MAX_PAYLOAD, violation } from "./codec.js";
import { parseStat, type GuestStat } from "./files.js";
import { STAT_BYTES } from "./message.js";
import { MAX_TREE_LINKS, MAX_TREE_LINK_BYTES, MAX_TREE_PATH_BYTES, Record, TreeOrder, ZEROS, type TreeEntry, type TreeEntryType } from "./tree.js";

export interface TreeLimits {
  /** Entries at most, 1,000,000 (MAX_TREE_ENTRIES) when left out. */
  maxEntries?: number;
  /** Bytes of content at most, holes included: a hole costs the guest nothing and whoever fills it with zeros a lot. */
  maxContentBytes?: number;
}

/**
 * The entries, each with its content. Throws PROTOCOL for what the guest may not send, a stream that breaks off included, INVALID_STATE above
 * `limits`, and whatever `source` throws. The value it returns are the totals, without what was skipped.
 */
export async function* readTree(source: AsyncIterable<Buffer>, limits: TreeLimits = {}): AsyncGenerator<TreeEntry, { entries: number; contentBytes: bigint }> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    return yield* new TreeReader(new Bytes(iterator), limits).read();
  } finally {
    await iterator.return?.();
  }
}

/** The file whose content is being read. */
interface OpenFile {
  isOver: boolean;
  chunkLeft: number;
  holeLeft: bigint;
}

class TreeReader {
  readonly #bytes: Bytes;
  readonly #limits: TreeLimits;
  readonly #order = new TreeOrder();
  /** Paths that a hard link may name: of files that the guest says have several names. */
  readonly #linkable = new Set<string>();
  #linkableBytes = 0;
  #contentBytes = 0n;

  constructor(bytes: Bytes, limits: TreeLimits) {
    this.#bytes = bytes;
    this.#limits = limits;
  }

  async *read(): AsyncGenerator<TreeEntry, { entries: number; contentBytes: bigint }> {
    for (;;) {
      const [type] = await this.#bytes.take(1);
      if (type === Record.END) return this.#end();
      if (type !== Record.ENTRY && type !== Record.HARD_LINK) throw violation(`a tree with ${type === Record.CHUNK || type === Record.HOLE || type === Record.END_FILE ? "content outside a file" : `an unknown record 0x${type!.toString(16)}`}`);
      const entry = await this.#entry(type === Record.HARD_LINK);
      if (entry.type !== "file" || entry.hardLinkTo !== undefined) {
        yield entry;
        continue;
      }
      const file: OpenFile = { isOver: false, chunkLeft: 0, holeLeft: 0n };
      entry.content = this.#content(file);
      yield entry;
      while (!file.isOver) await this.#next(file, true);
    }
  }

  async #end(): Promise<{ entries: number; contentBytes: bigint }> {
    const totals = await this.#bytes.take(16);
    const { entries } = this.#order;
    if (entries === 0) throw violation("a tree without an entry");
    if (totals.readBigUInt64LE(0) !== BigInt(entries) || totals.readBigUInt64LE(8) !== this.#contentBytes) throw violation("a tree whose end has other totals");
    if (!(await this.#bytes.isOver())) throw violation("bytes after the end of a tree");
    return { entries, contentBytes: this.#contentBytes };
  }

  async #entry(isHardLink: boolean): Promise<TreeEntry> {
    const path = await this.#text();
    const stat = parseStat(await this.#bytes.take(STAT_BYTES));
    const target = await this.#text();
    const { type } = stat;
    if (type !== "file" && type !== "directory" && type !== "link" && type !== "fifo") throw violation(`a tree with an entry of the type ${type}`);
    const wrong = this.#order.take(path, type === "directory");
    if (wrong !== undefined) throw violation(`a tree with ${wrong}`);
    const { maxEntries = Infinity } = this.#limits;
    if (this.#order.entries > maxEntries) throw new PyroError("INVALID_STATE", `The tree has over ${maxEntries} entries.`, { hint: "Copy a part of it." });
    if (isHardLink) this.#checkHardLink(type, target);
    else if ((type === "link") !== target.length > 0) throw violation("a tree with a target that does not fit its entry");
    else if (type === "file" && stat.links > 1) this.#remember(path);
    return entryOf(path, type, stat, target, isHardLink);
  }

  #checkHardLink(type: TreeEntryType, target: Buffer): void {
    if (type !== "file" || !this.#linkable.has(target.toString("latin1"))) throw violation("a tree with a hard link to what is no earlier file");
  }

  #remember(path: Buffer): void {
    this.#linkableBytes += path.length;
    if (this.#linkable.size >= MAX_TREE_LINKS) throw violation(`a tree with over ${MAX_TREE_LINKS} files of several names (MAX_TREE_LINKS)`);
    if (this.#linkableBytes > MAX_TREE_LINK_BYTES) throw violation(`a tree with over ${MAX_TREE_LINK_BYTES} bytes of names of such files (MAX_TREE_LINK_BYTES)`);
    this.#linkable.add(path.toString("latin1"));
  }

  async #text(): Promise<Buffer> {
    const length = (await this.#bytes.take(2)).readUInt16LE();
    if (length > MAX_TREE_PATH_BYTES) throw violation(`a tree with a path of ${length} bytes`);
    const text = Buffer.from(await this.#bytes.take(length));
    if (text.includes(0)) throw violation("a tree with a NUL byte in a path");
    return text;
  }

  async *#content(file: OpenFile): AsyncGenerator<Buffer, void> {
    // What the reader of the entries has skipped meanwhile is over, too.
    for (;;) {
      const chunk = await this.#next(file, false);
      if (chunk === undefined) return;
      yield chunk;
    }
  }

  /** The next piece of the file's content, undefined at its end. With `skip` a hole is one piece, whatever its size. */
  async #next(file: OpenFile, skip: boolean): Promise<Buffer | undefined> {
    while (!file.isOver) {
      if (file.chunkLeft > 0) {
        const part = await this.#bytes.some(file.chunkLeft);
        file.chunkLeft -= part.length;
        return part;
      }
      if (file.holeLeft > 0n) {
        const part = ZEROS.subarray(0, Number(file.holeLeft < MAX_PAYLOAD ? file.holeLeft : MAX_PAYLOAD));
        file.holeLeft = skip ? 0n : file.holeLeft - BigInt(part.length);
        return part;
      }
      const [type] = await this.#bytes.take(1);
      if (type === Record.END_FILE) {
        file.isOver = true;
      } else if (type === Record.CHUNK) {
        file.chunkLeft = (await this.#bytes.take(4)).readUInt32LE();
        if (file.chunkLeft < 1 || file.chunkLeft > MAX_PAYLOAD) throw violation(`a tree with a chunk of ${file.chunkLeft} bytes`);
        this.#count(BigInt(file.chunkLeft));
      } else if (type === Record.HOLE) {
        file.holeLeft = (await this.#bytes.take(8)).readBigUInt64LE();
        if (file.holeLeft < 1n || file.holeLeft >= 1n << 63n) throw violation(`a tree with a hole of ${file.holeLeft} bytes`);
        this.#count(file.holeLeft);
      } else {
        throw violation(`a tree with the record 0x${type!.toString(16)} inside a file`);
      }
    }
    return undefined;
  }

  #count(bytes: bigint): void {
    this.#contentBytes += bytes;
    if (this.#contentBytes >= 1n << 63n) throw violation("a tree with over 2^63 - 1 bytes of content");
    const { maxContentBytes } = this.#limits;
    if (maxContentBytes !== undefined && this.#contentBytes > maxContentBytes) throw new PyroError("INVALID_STATE", `The tree has over ${maxContentBytes} bytes of content.`, { hint: "Copy a part of it." });
  }
}

function entryOf(path: Buffer, type: TreeEntryType, stat: GuestStat, target: Buffer, isHardLink: boolean): TreeEntry {
  const { mode, uid, gid, mtimeNs, sizeBytes } = stat;
  const entry: TreeEntry = { path, type, mode, uid, gid, mtimeNs, sizeBytes };
  if (isHardLink) entry.hardLinkTo = target;
  else if (type === "link") entry.target = target;
  return entry;
}

/** Takes from chunks of any size. */
class Bytes {
  readonly #source: AsyncIterator<Buffer>;
  #chunk: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterator<Buffer>) {
    this.#source = source;
  }

  /** Exactly so many; copied only where they are split over chunks. */
  async take(length: number): Promise<Buffer> {
    if (this.#chunk.length >= length) return this.#cut(length);
    const parts: Buffer[] = [];
    for (let missing = length; missing > 0; ) {
      const part = await this.some(missing);
      missing -= part.length;
      parts.push(part);
    }
    return Buffer.concat(parts, length);
  }

  /** At least one, at most so many. */
  async some(most: number): Promise<Buffer> {
    if (await this.isOver()) throw violation("a tree that breaks off");
    return this.#cut(Math.min(most, this.#chunk.length));
  }

  async isOver(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      const next = await this.#source.next();
      if (next.done === true) return true;
      this.#chunk = next.value;
    }
    return false;
  }

  #cut(length: number): Buffer {
    const part = this.#chunk.subarray(0, length);
    this.#chunk = this.#chunk.subarray(length);
    return part;
  }
}
