/** The entries of a tree to bytes for a guest. Pure: whoever takes the bytes sets the pace. */
import { Buffer } from "node:buffer";
import { MAX_PAYLOAD } from "./codec.js";
import { STAT_BYTES, invalid } from "./message.js";
import { MAX_TREE_PATH_BYTES, Record, TreeOrder, ZEROS, typeBits, type TreeEntry } from "./tree.js";

/** Smaller pieces are copied together, so that a small file doesn't cost several frames. */
const COPY_BELOW_BYTES = 16_384;
/** Shorter runs of zeros are sent as they are. */
const HOLE_BYTES = 4096;

/** Throws INVALID_ARGUMENT for an entry that no tree can have, and whatever `entries` and their contents throw. */
export async function* writeTree(entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>): AsyncGenerator<Buffer, void> {
  const order = new TreeOrder();
  const block = new Block();
  let contentBytes = 0n;
  for await (const entry of entries) {
    const wrong = order.take(entry.path, entry.type === "directory") ?? wrongEntry(entry);
    if (wrong !== undefined) throw invalid(`A tree can't be copied into the guest: it has ${wrong} at ${JSON.stringify(entry.path.toString())}.`);
    yield* block.add(encodeEntry(entry));
    if (entry.type !== "file" || entry.hardLinkTo !== undefined) continue;
    let hole = 0n;
    for await (const chunk of entry.content ?? []) {
      contentBytes += BigInt(chunk.length);
      for (let at = 0; at < chunk.length; at += MAX_PAYLOAD) {
        const part = chunk.subarray(at, at + MAX_PAYLOAD);
        if (part.length >= HOLE_BYTES && part.equals(ZEROS.subarray(0, part.length))) {
          hole += BigInt(part.length);
          continue;
        }
        if (hole > 0n) yield* block.add(encodeHole(hole));
        hole = 0n;
        yield* block.add(encodeHead(Record.CHUNK, part.length));
        yield* block.add(part);
      }
    }
    if (hole > 0n) yield* block.add(encodeHole(hole));
    yield* block.add(Buffer.of(Record.END_FILE));
  }
  if (order.entries === 0) throw invalid("A tree without an entry can't be copied into the guest.");
  yield* block.add(encodeEnd(order.entries, contentBytes));
  yield* block.flush();
}

function wrongEntry({ type, mode, uid, gid, sizeBytes, target, hardLinkTo }: TreeEntry): string | undefined {
  if (typeBits[type] === undefined) return `the type ${String(type)}`;
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) return `the mode ${mode}`;
  for (const id of [uid, gid]) if (!Number.isInteger(id) || id < 0 || id > 0xffff_fffe) return `the owner ${id}`;
  if (BigInt.asUintN(64, sizeBytes) !== sizeBytes) return `the size ${sizeBytes}`;
  if (hardLinkTo !== undefined && (type !== "file" || hardLinkTo.length === 0)) return "a hard link that is no file";
  const text = hardLinkTo ?? target;
  if (hardLinkTo === undefined && (type === "link") !== (target !== undefined && target.length > 0)) return "a target that does not fit its type";
  if (text !== undefined && (text.length > MAX_TREE_PATH_BYTES || text.includes(0))) return "a target that is too long or has a NUL byte";
  return undefined;
}

function encodeEntry(entry: TreeEntry): Buffer {
  const target = entry.hardLinkTo ?? entry.target ?? Buffer.alloc(0);
  const { path } = entry;
  const bytes = Buffer.alloc(1 + 2 + path.length + STAT_BYTES + 2 + target.length);
  bytes.writeUInt8(entry.hardLinkTo === undefined ? Record.ENTRY : Record.HARD_LINK, 0);
  bytes.writeUInt16LE(path.length, 1);
  path.copy(bytes, 3);
  const at = 3 + path.length;
  const nanoseconds = ((entry.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  bytes.writeUInt32LE(typeBits[entry.type] | entry.mode, at);
  bytes.writeUInt32LE(entry.uid, at + 4);
  bytes.writeUInt32LE(entry.gid, at + 8);
  bytes.writeUInt32LE(1, at + 12);
  bytes.writeBigUInt64LE(entry.sizeBytes, at + 16);
  bytes.writeBigInt64LE(BigInt.asIntN(64, (entry.mtimeNs - nanoseconds) / 1_000_000_000n), at + 24);
  bytes.writeUInt32LE(Number(nanoseconds), at + 32);
  bytes.writeUInt16LE(target.length, at + STAT_BYTES);
  target.copy(bytes, at + STAT_BYTES + 2);
  return bytes;
}

function encodeHead(type: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(5);
  bytes.writeUInt8(type, 0);
  bytes.writeUInt32LE(length, 1);
  return bytes;
}

function encodeHole(length: bigint): Buffer {
  const bytes = Buffer.allocUnsafe(9);
  bytes.writeUInt8(Record.HOLE, 0);
  bytes.writeBigUInt64LE(length, 1);
  return bytes;
}

function encodeEnd(entries: number, contentBytes: bigint): Buffer {
  const bytes = Buffer.allocUnsafe(17);
  bytes.writeUInt8(Record.END, 0);
  bytes.writeBigUInt64LE(BigInt(entries), 1);
  bytes.writeBigUInt64LE(contentBytes, 9);
  return bytes;
}

/** Small pieces in one buffer, large ones as they are. Not filled again once it was given away: who takes it may keep it for a while. */
class Block {
  #bytes = Buffer.allocUnsafeSlow(MAX_PAYLOAD);
  #length = 0;

  *add(piece: Buffer): Generator<Buffer, void> {
    const isLarge = piece.length >= COPY_BELOW_BYTES;
    if (isLarge || this.#length + piece.length > this.#bytes.length) yield* this.flush();
    if (isLarge) yield piece;
    else this.#length += piece.copy(this.#bytes, this.#length);
  }

  *flush(): Generator<Buffer, void> {
    if (this.#length === 0) return;
    // What little is in it gets a buffer of its own size, and the block goes on behind it.
    yield this.#bytes.subarray(0, this.#length);
    this.#bytes = this.#length > MAX_PAYLOAD / 2 || this.#bytes.length - this.#length < COPY_BELOW_BYTES ? Buffer.allocUnsafeSlow(MAX_PAYLOAD) : this.#bytes.subarray(this.#length);
    this.#length = 0;
  }
}
