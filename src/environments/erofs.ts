/**
 * Makes a read-only EROFS disk image out of a stream of tar entries: one pass, nothing extracted, no privileges. Contents go to
 * the image as they arrive; the tree is kept in memory and written behind them.
 */
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { parseAcl } from "./acl.js";
import { blockBytes, BlockFile } from "./block-file.js";
import { maxXattrAreaBytes, splitXattrName, xattrAreaBytes } from "./erofs-layout.js";
import { writeMetadata } from "./erofs-metadata.js";
import { chooseChunkBits, SparseWriter } from "./erofs-sparse.js";
import { showPath } from "./show-path.js";
import type { TarEntry } from "./tar.js";
import { FileTree, ownCopy, treeLimits, type TreeLimits, type Attributes, type Content, type Inode } from "./tree.js";

export interface ErofsOptions {
  /** Seconds since 1970: later modification times become this one, so that the same packages give the same image. */
  clampMtime?: number;
  signal?: AbortSignal;
  /** Called now and then: bytes of the image and entries so far. */
  onProgress?: (bytes: number, entries: number) => void;
  /** 16 bytes; zeros when left out, since the image must not depend on when it was made. */
  uuid?: Uint8Array;
  /** At most 15 ASCII characters. */
  volumeName?: string;
  limits?: Partial<ErofsLimits>;
}

export interface ErofsLimits extends TreeLimits {
  /** Bytes of the image; the format itself ends at 16 TiB. */
  maxImageBytes: number;
}

export const erofsLimits: Readonly<ErofsLimits> = { maxImageBytes: 2 ** 40, ...treeLimits };

export interface ErofsResult {
  /** Whole blocks of 4 KiB. */
  sizeBytes: number;
  /** `sha256:` and 64 hexadecimal digits. */
  digest: string;
  /** Entries that were taken from the archive. */
  entries: number;
  inodes: number;
  /** Extended attributes that Linux has no name space for (another system's), left out. */
  droppedXattrs: number;
}

/** Writes an image of `entries` to `imagePath`. On any error the file is gone. Throws what `ErofsImage` throws. */
export async function writeErofs(entries: AsyncIterable<TarEntry>, imagePath: string, options: ErofsOptions = {}): Promise<ErofsResult> {
  const image = await ErofsImage.create(imagePath, options);
  try {
    for await (const entry of entries) await image.add(entry);
    return await image.finish();
  } catch (error) {
    await image.discard();
    throw error;
  }
}

/**
 * An image in the making. `add` entries, change `tree` (remove what a layer's whiteout names), `finish`. Whoever made it calls
 * `finish` or `discard`. Throws EXISTS, DISK_FULL, DENIED, CANCELLED, and ENVIRONMENT_INVALID for entries that can't be.
 */
export class ErofsImage {
  readonly tree: FileTree;
  private entries = 0;
  private droppedXattrs = 0;
  private readonly limits: ErofsLimits;

  private constructor(
    private readonly file: BlockFile,
    private readonly options: ErofsOptions,
  ) {
    this.limits = { ...erofsLimits, ...options.limits };
    this.tree = new FileTree(this.limits);
  }

  static async create(path: string, options: ErofsOptions = {}): Promise<ErofsImage> {
    checkSignal(options.signal);
    const image = new ErofsImage(await BlockFile.create(path), options);
    // The first block (superblock, root inode) is written last.
    await image.file.zeros(blockBytes);
    return image;
  }

  /** Puts one entry into the tree and, if it is a file, its content into the image. */
  async add(entry: TarEntry): Promise<void> {
    if (entry.type === "hardlink") {
      this.count();
      this.tree.link(entry.path, entry.linkTarget!);
    } else {
      this.tree.put(entry.path, await this.store(entry));
    }
  }

  /** What an entry is, for the tree to be given it; a file's content goes into the image, or is left for `fill`. Of anything but hard links. */
  async store(entry: TarEntry, { leaveContent = false } = {}): Promise<Inode> {
    this.count();
    const left = leaveContent && entry.type === "file" && entry.size > 0;
    return { shape: left ? { type: "file", content: { sizeBytes: entry.size, left } } : await this.shape(entry), attributes: this.attributes(entry) };
  }

  /** Puts the content of `entry` into the image for `inode`, which it was left for. */
  async fill(inode: Inode, entry: TarEntry): Promise<void> {
    inode.shape = await this.shape(entry);
  }

  private count(): void {
    checkSignal(this.options.signal);
    if (++this.entries % progressEvery === 0) this.options.onProgress?.(this.file.length, this.entries);
  }

  /** Writes all that is left and closes the file. */
  async finish(): Promise<ErofsResult> {
    checkSignal(this.options.signal);
    this.tree.resolveLinks();
    const inodes = await writeMetadata(this.file, this.tree.root, {
      buildTime: this.options.clampMtime ?? 0,
      uuid: this.options.uuid ?? new Uint8Array(16),
      volumeName: this.options.volumeName ?? "",
    });
    this.options.onProgress?.(this.file.length, this.entries);
    // A manifest that names this digest must not reach the disk before the image does; the disk works while we hash.
    const [digest] = await Promise.all([this.file.digest(this.options.signal), this.file.sync()]);
    await this.file.close();
    return { sizeBytes: this.file.length, digest, entries: this.entries, inodes, droppedXattrs: this.droppedXattrs };
  }

  /** Gives up: closes and removes the file. */
  async discard(): Promise<void> {
    await this.file.discard();
  }

  private async shape(entry: TarEntry): Promise<Inode["shape"]> {
    switch (entry.type) {
      case "directory":
        return { type: "directory", children: new Map() };
      case "file":
        return { type: "file", content: await this.content(entry) };
      case "symlink":
        if (entry.linkTarget!.length > maxTargetBytes) throw invalid(entry, `is a symlink to a path of ${entry.linkTarget!.length} bytes; ${maxTargetBytes} is the most`);
        this.tree.charge(entry.path, entry.linkTarget!.length);
        return { type: "symlink", target: ownCopy(entry.linkTarget!) };
      case "character":
      case "block": {
        const device = entry.device!;
        if (device.major > 0xfff || device.minor > 0xfffff) throw invalid(entry, `is the device ${device.major}:${device.minor}; Linux has numbers to 4095:1048575`);
        return { type: entry.type, device };
      }
      case "fifo":
        return { type: "fifo" };
      case "hardlink":
        throw new PyroError("INTERNAL", "A hard link has no shape of its own.");
    }
  }

  private async content(entry: TarEntry): Promise<Content> {
    if (entry.sparse !== undefined) return this.sparseContent(entry, entry.sparse);
    if (entry.size === 0) return { sizeBytes: 0, block: -1 };
    this.checkRoom(entry, entry.size);
    const block = this.file.length / blockBytes;
    for await (const part of entry.content()) {
      checkSignal(this.options.signal);
      await this.file.append(part);
    }
    await this.file.align(blockBytes);
    return { sizeBytes: entry.size, block };
  }

  private async sparseContent(entry: TarEntry, extents: NonNullable<TarEntry["sparse"]>): Promise<Content> {
    const { chunkBits, dataBytes, mapEntries } = chooseChunkBits(extents, entry.size);
    this.tree.charge(entry.path, mapEntries * 4);
    this.checkRoom(entry, dataBytes);
    const writer = new SparseWriter(this.file, entry.size, chunkBits, extents);
    for await (const part of entry.content()) {
      checkSignal(this.options.signal);
      await writer.append(part);
    }
    return { sizeBytes: entry.size, chunkBits, chunks: await writer.finish() };
  }

  private attributes(entry: TarEntry): Attributes {
    const { clampMtime } = this.options;
    const mtime = clampMtime !== undefined && entry.mtime.seconds >= clampMtime ? { seconds: clampMtime, nanoseconds: 0 } : entry.mtime;
    return { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime, xattrs: this.xattrs(entry) };
  }

  private xattrs(entry: TarEntry): ReadonlyMap<string, Buffer> {
    if (entry.xattrs.size === 0 && entry.acl === undefined) return noXattrs;
    const kept = new Map<string, Buffer>();
    for (const kind of ["access", "default"] as const) {
      const text = entry.acl?.[kind];
      const name = `system.posix_acl_${kind}`;
      // Some programs write both the text and the attribute itself, which needs no names to be known.
      if (text !== undefined && !entry.xattrs.has(name)) kept.set(name, parseAcl(text, showPath(entry.path)));
    }
    for (const [name, value] of entry.xattrs) {
      const split = splitXattrName(name);
      if (split === undefined) {
        this.droppedXattrs++;
        continue;
      }
      if (split.rest.length > 255 || name.includes("\0")) throw invalid(entry, `has an extended attribute with a name of ${split.rest.length} bytes; 255 is the most`);
      if (value.length > 0xffff) throw invalid(entry, `has an extended attribute of ${value.length} bytes; 65535 is the most`);
      kept.set(name, ownCopy(value));
    }
    for (const [name, value] of kept) this.tree.charge(entry.path, xattrMemoryBytes + name.length + value.length);
    if (xattrAreaBytes(kept) > maxXattrAreaBytes) throw invalid(entry, `has more than ${maxXattrAreaBytes} bytes of extended attributes`);
    return kept;
  }

  private checkRoom(entry: TarEntry, bytes: number): void {
    if (this.file.length + bytes > this.limits.maxImageBytes) throw invalid(entry, `is over the limit maxImageBytes (${this.limits.maxImageBytes})`);
  }
}

const progressEvery = 256;
/** What an attribute takes in memory besides its bytes: a map's place, a string and a buffer. */
const xattrMemoryBytes = 200;
/** PATH_MAX of Linux without the NUL. */
const maxTargetBytes = 4095;
const noXattrs: ReadonlyMap<string, Buffer> = new Map();

function invalid(entry: TarEntry, what: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The archive can't become a root file system: ${showPath(entry.path)} ${what}.`);
}
