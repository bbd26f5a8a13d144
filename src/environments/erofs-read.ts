/**
 * The tree in a disk image of ours, as the entries of an archive again. Reads what `erofs-layout.ts` writes and nothing else; the image was checked by its digest, so what can't be is a
 * bug or a disk that fails, and is said as damage.
 */
import type { FileHandle } from "node:fs/promises";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { openRegular } from "../base/regular-file.js";
import { blockBytes } from "./block-file.js";
import { dataLayout, decodeDevice, directoryFileType, inodeBytes, parseXattrs, rootNid, slotBytes, typeOfMode, xattrBytesOf } from "./erofs-layout.js";
import type { TarEntry, TarEntryType } from "./tar.js";
import { treeLimits } from "./tree.js";

/** Depth first, names in the order of their bytes, the root (`./`) first; a file's other names are hard links to its first. Throws ENVIRONMENT_INVALID, CANCELLED. */
export async function* readErofs(imagePath: string, signal?: AbortSignal): AsyncGenerator<TarEntry, void, undefined> {
  const image = new Image(await openRegular(imagePath), imagePath);
  try {
    const names = new Map<number, Buffer>(); // of files with several names, the first one
    const todo: { nid: number; path: Buffer; depth: number }[] = [{ nid: rootNid, path: Buffer.from("./"), depth: 0 }];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      checkSignal(signal);
      const { nid, path, depth } = next;
      const inode = await image.inode(nid);
      const earlier = inode.type !== "directory" && inode.links > 1 ? names.get(nid) : undefined;
      if (earlier !== undefined) {
        yield entryOf(path, inode, { type: "hardlink", linkTarget: earlier });
        continue;
      }
      if (inode.type !== "directory" && inode.links > 1) names.set(nid, path);
      if (inode.type === "symlink") yield entryOf(path, inode, { linkTarget: await collect(image.content(inode)) });
      else if (inode.type === "file") yield entryOf(path, inode, { size: inode.sizeBytes, content: () => image.content(inode, signal) });
      else yield entryOf(path, inode, {});
      if (inode.type !== "directory") continue;
      if (depth > treeLimits.maxDepth) throw image.damaged("its directories never end");
      const children = await image.children(inode);
      for (const { name, nid: child, isDirectory } of children.toReversed()) todo.push({ nid: child, path: Buffer.concat([path, name, Buffer.from(isDirectory ? "/" : "")]), depth: depth + 1 });
    }
  } finally {
    await image.close();
  }
}

interface ReadInode {
  type: Exclude<TarEntryType, "hardlink">;
  mode: number;
  uid: number;
  gid: number;
  sizeBytes: number;
  mtime: { seconds: number; nanoseconds: number };
  links: number;
  layout: number;
  union: number;
  xattrs: ReadonlyMap<string, Buffer>;
  /** Where what stands behind the inode and its attributes begins, bytes. */
  tailAt: number;
}

interface Child {
  name: Buffer;
  nid: number;
  isDirectory: boolean;
}

function entryOf(path: Buffer, inode: ReadInode, more: Partial<TarEntry>): TarEntry {
  const { type, mode, uid, gid, mtime, xattrs, union } = inode;
  return { path, type, mode, uid, gid, mtime, xattrs, size: 0, offset: 0, ...((type === "character" || type === "block") && { device: decodeDevice(union) }), content: () => nothing(), ...more };
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** Metadata lies together, and is asked for in small pieces. */
const pageBytes = 1 << 16;
const maxPages = 256;
const chunkBytes = 1 << 19;

class Image {
  private readonly pages = new Map<number, Promise<Buffer>>();

  constructor(
    private readonly file: FileHandle,
    private readonly path: string,
  ) {}

  close(): Promise<void> {
    return this.file.close();
  }

  damaged(what: string): PyroError {
    return new PyroError("ENVIRONMENT_INVALID", `${this.path} is damaged: ${what}.`);
  }

  async inode(nid: number): Promise<ReadInode> {
    const at = nid * slotBytes;
    const head = await this.small(at, inodeBytes);
    const mode = head.readUInt16LE(4);
    const type = typeOfMode(mode);
    if ((head.readUInt16LE(0) & 1) !== 1 || type === undefined) throw this.damaged(`there is no inode ${nid}`);
    const xattrBytes = xattrBytesOf(head.readUInt16LE(2));
    return {
      type,
      mode: mode & 0o7777,
      uid: head.readUInt32LE(24),
      gid: head.readUInt32LE(28),
      sizeBytes: Number(head.readBigUInt64LE(8)),
      mtime: { seconds: Number(head.readBigInt64LE(32)), nanoseconds: head.readUInt32LE(40) },
      links: head.readUInt32LE(44),
      layout: (head.readUInt16LE(0) >> 1) & 7,
      union: head.readUInt32LE(16),
      xattrs: xattrBytes === 0 ? noXattrs : parseXattrs(await this.small(at + inodeBytes, xattrBytes)),
      tailAt: at + inodeBytes + xattrBytes,
    };
  }

  /** Sorted, without `.` and `..`. */
  async children(inode: ReadInode): Promise<Child[]> {
    const children: Child[] = [];
    const data = await collect(this.content(inode));
    for (let start = 0; start < data.length; start += blockBytes) {
      const block = data.subarray(start, start + blockBytes);
      const count = block.readUInt16LE(8) / 12;
      for (let index = 0; index < count; index++) {
        const from = block.readUInt16LE(index * 12 + 8);
        const to = index + 1 < count ? block.readUInt16LE((index + 1) * 12 + 8) : block.length;
        const whole = block.subarray(from, to);
        const nul = whole.indexOf(0); // only the last name of a block is followed by zeros
        const name = Buffer.from(nul === -1 ? whole : whole.subarray(0, nul));
        const text = name.toString("latin1");
        if (text === "" || text.includes("/")) throw this.damaged("a name in it is none");
        if (text !== "." && text !== "..") children.push({ name, nid: Number(block.readBigUInt64LE(index * 12)), isDirectory: block[index * 12 + 10] === directoryFileType });
      }
    }
    return children;
  }

  async *content(inode: ReadInode, signal?: AbortSignal): AsyncGenerator<Buffer> {
    const { layout, sizeBytes, union, tailAt } = inode;
    if (sizeBytes === 0) return;
    if (layout === dataLayout.plain) {
      yield* this.range(union * blockBytes, sizeBytes, signal);
    } else if (layout === dataLayout.inline) {
      const whole = (Math.ceil(sizeBytes / blockBytes) - 1) * blockBytes;
      yield* this.range(union * blockBytes, whole, signal);
      yield await this.small(tailAt, sizeBytes - whole);
    } else if (layout === dataLayout.chunked) {
      const bytes = blockBytes * 2 ** (union & 0x1f);
      for (let index = 0; index * bytes < sizeBytes; index++) {
        const block = (await this.small(tailAt + index * 4, 4)).readInt32LE(0);
        const length = Math.min(bytes, sizeBytes - index * bytes);
        if (block !== -1) yield* this.range((block >>> 0) * blockBytes, length, signal);
        else for (let left = length; left > 0; left -= chunkBytes) yield zeros.subarray(0, Math.min(left, chunkBytes));
      }
    } else {
      throw this.damaged(`a file in it has the layout ${layout}`);
    }
  }

  private async *range(at: number, length: number, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
    for (let done = 0; done < length; ) {
      checkSignal(signal);
      const part = await this.read(at + done, Math.min(chunkBytes, length - done));
      yield part;
      done += part.length;
    }
  }

  /** A few bytes, copied out of pages that are kept. */
  private async small(at: number, length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let done = 0; done < length; ) {
      const number = Math.floor((at + done) / pageBytes);
      const page = await this.page(number);
      const part = page.subarray(at + done - number * pageBytes, at + length - number * pageBytes);
      if (part.length === 0) throw this.damaged("it ends too soon");
      parts.push(part);
      done += part.length;
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts, length);
  }

  private page(number: number): Promise<Buffer> {
    let page = this.pages.get(number);
    if (page === undefined) {
      page = this.read(number * pageBytes, pageBytes, true);
      if (this.pages.size >= maxPages) this.pages.delete(this.pages.keys().next().value!);
    } else {
      this.pages.delete(number); // it is the youngest again
    }
    this.pages.set(number, page);
    return page;
  }

  private async read(at: number, length: number, mayEnd = false): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.file.read(buffer, done, length - done, at + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    if (done < length && !mayEnd) throw this.damaged("it ends too soon");
    return buffer.subarray(0, done);
  }
}

const zeros = Buffer.alloc(chunkBytes);
const noXattrs: ReadonlyMap<string, Buffer> = new Map();

async function collect(parts: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const part of parts) all.push(part);
  return Buffer.concat(all);
}
