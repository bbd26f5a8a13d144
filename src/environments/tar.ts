/**
 * Reads tar archives as a stream: v7, ustar, GNU (long names, base-256 numbers, sparse files) and PAX (POSIX.1-2017, pax;
 * GNU tar manual, "Tar Internals"). It reads and limits; what a path means is for whoever builds a tree from it.
 */
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { showPath } from "./show-path.js";
import { parseDecimal, parseField, parseTime } from "./tar-number.js";
import { parsePax, type PaxRecords } from "./tar-pax.js";
import { checkExtents, readOldSparse, readSparseMap, parseSparseList, type Extent } from "./tar-sparse.js";
import { ByteSource } from "./tar-source.js";

export type TarEntryType = "file" | "directory" | "symlink" | "hardlink" | "character" | "block" | "fifo";

export interface TarEntry {
  /** As in the archive: any bytes but NUL, not normalised, never empty. */
  path: Buffer;
  type: TarEntryType;
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of a file as a program would see it, holes included; 0 for all other types. */
  size: number;
  mtime: { seconds: number; nanoseconds: number };
  /** Of symlinks and hard links. */
  linkTarget?: Buffer;
  /** Of character and block devices. */
  device?: { major: number; minor: number };
  /** Extended attributes by full name (`security.capability`), names as latin1, values as bytes. */
  xattrs: ReadonlyMap<string, Buffer>;
  /** POSIX ACLs in GNU tar's text form (`user::rwx,group::r-x,…`), as far as the archive has them. */
  acl?: { access?: string; default?: string };
  /** Of sparse files: where the data is, ascending, without overlap, none empty. Everything else of the file is zero. */
  sparse?: readonly Extent[];
  /** Where the entry's first header is in the archive, bytes; for messages. */
  offset: number;
  /** A file's data; of a sparse file the extents one after the other. Once only, and only until the next entry is asked for. */
  content(): AsyncIterable<Uint8Array>;
}

export interface TarLimits {
  /** Bytes of a path or link target. */
  maxPathBytes: number;
  /** Bytes of one extended header. */
  maxHeaderBytes: number;
  maxXattrs: number;
  /** Bytes of an entry's extended attributes, names and values. */
  maxXattrBytes: number;
  maxEntries: number;
  maxSparseExtents: number;
  maxFileBytes: number;
  /** Bytes of the whole archive. */
  maxArchiveBytes: number;
}

export const tarLimits: Readonly<TarLimits> = {
  maxPathBytes: 4096,
  maxHeaderBytes: 1 << 20,
  maxXattrs: 256,
  maxXattrBytes: 256 << 10,
  maxEntries: 4_000_000,
  maxSparseExtents: 1 << 18,
  maxFileBytes: 2 ** 42,
  maxArchiveBytes: 2 ** 40,
};

export interface ReadTarOptions {
  limits?: Partial<TarLimits>;
  signal?: AbortSignal;
  /** Accept an archive that stops after a whole entry, without the block of zeros that marks the end, or the last file's padding. Default false: it may have been cut. */
  endMayBeMissing?: boolean;
}

/**
 * The entries of a tar archive, in order; what follows the archive's end is read and ignored, so that a source that checks a
 * digest sees every byte. Throws ENVIRONMENT_INVALID (the message names the entry or offset, and the limit if it was one) and
 * CANCELLED.
 */
export async function* readTar(source: AsyncIterable<Uint8Array>, options: ReadTarOptions = {}): AsyncGenerator<TarEntry, void, undefined> {
  const reader = new TarReader(new ByteSource(source, options.signal), { ...tarLimits, ...options.limits }, options.endMayBeMissing ?? false);
  try {
    for (;;) {
      const entry = await reader.next();
      if (entry === undefined) return;
      yield entry;
    }
  } finally {
    await reader.source.close();
  }
}

const blockBytes = 512;

class TarReader {
  /** Bytes of the current entry's data that have not been taken, and of the padding behind it. */
  private dataLeft = 0;
  private paddingLeft = 0;
  /** Counts entries; content() of an earlier one is refused. */
  private entries = 0;
  private global: PaxRecords = new Map();

  constructor(
    readonly source: ByteSource,
    private readonly limits: TarLimits,
    private readonly endMayBeMissing: boolean,
  ) {}

  async next(): Promise<TarEntry | undefined> {
    await this.skipRest();
    const start = this.source.offset;
    let local: PaxRecords | undefined;
    let longName: Buffer | undefined;
    let longLink: Buffer | undefined;
    for (let headers = 0; ; headers++) {
      if (headers > maxHeadersPerEntry) throw this.limit("maxHeadersPerEntry", maxHeadersPerEntry, start);
      const block = await this.header();
      if (block === undefined) {
        if (local !== undefined || longName !== undefined || longLink !== undefined) throw this.cut();
        return undefined;
      }
      const kind = String.fromCharCode(block[156]!);
      switch (kind) {
        case "x":
        case "X": {
          local = new Map(this.global);
          parsePax(await this.headerData(block), local, at(start));
          continue;
        }
        case "g":
          parsePax(await this.headerData(block), this.global, at(start));
          if (this.global.size > maxGlobalRecords) throw this.limit("maxGlobalRecords", maxGlobalRecords, start);
          if (recordBytes(this.global) > maxGlobalBytes) throw this.limit("maxGlobalBytes", maxGlobalBytes, start);
          continue;
        case "L":
          longName = untilNul(await this.headerData(block));
          continue;
        case "K":
          longLink = untilNul(await this.headerData(block));
          continue;
        case "V": // a volume's label: no file
          await this.headerData(block);
          continue;
      }
      return this.entry(block, kind, start, local ?? this.global, longName, longLink);
    }
  }

  private async entry(block: Buffer, kind: string, start: number, pax: PaxRecords, longName: Buffer | undefined, longLink: Buffer | undefined): Promise<TarEntry> {
    const sparseName = pax.get("GNU.sparse.name");
    // Copied, so that an entry that is kept does not keep the whole chunk it came in.
    const path = Buffer.from(sparseName ?? pax.get("path") ?? longName ?? headerPath(block));
    if (path.length === 0) throw this.damaged("an entry without a name", start);
    const name = `${showPath(path)} (${at(start)})`;
    this.checkPath(path, name);
    if (++this.entries > this.limits.maxEntries) throw this.limit("maxEntries", this.limits.maxEntries, start);

    const type = entryType(kind, path);
    if (type === undefined) throw new PyroError("ENVIRONMENT_INVALID", `The archive's entry ${name} is of the unknown type "${harmlessLine(kind, 1)}".`);
    const stored = hasData(kind) ? this.size(pax.get("size"), block, 124, name) : 0;
    if (this.source.offset + stored > this.limits.maxArchiveBytes) throw this.limit("maxArchiveBytes", this.limits.maxArchiveBytes, start, name);
    this.dataLeft = stored;
    this.paddingLeft = -stored & (blockBytes - 1);

    const entry: TarEntry = {
      path,
      type,
      mode: this.field(block, 100, 8, "mode", name) & 0o7777,
      uid: this.id(pax.get("uid"), block, 108, "uid", name),
      gid: this.id(pax.get("gid"), block, 116, "gid", name),
      size: type === "file" ? stored : 0,
      mtime: this.time(pax.get("mtime"), block, name),
      xattrs: noXattrs,
      offset: start,
      content: () => noContent,
    };
    if (type === "symlink" || type === "hardlink") {
      const target = pax.get("linkpath") ?? longLink ?? untilNul(block.subarray(157, 257));
      if (target.length === 0) throw this.damaged("a link without a target", start, name);
      this.checkPath(target, name);
      entry.linkTarget = Buffer.from(target);
    }
    if (type === "character" || type === "block") {
      entry.device = { major: this.field(block, 329, 8, "device major", name), minor: this.field(block, 337, 8, "device minor", name) };
    }
    if (pax.size > 0) this.attributes(entry, pax, name);
    if (type === "file") {
      if (kind === "S") await this.oldSparse(entry, block, name);
      else if (pax.has("GNU.sparse.size") || pax.has("GNU.sparse.map") || pax.has("GNU.sparse.major")) await this.paxSparse(entry, pax, name);
      const mine = this.entries;
      entry.content = () => this.content(mine, name);
    }
    return entry;
  }

  /** One header block with its checksum checked; undefined at the archive's end. */
  private async header(): Promise<Buffer | undefined> {
    const start = this.source.offset;
    const block = this.source.takeNow(blockBytes) ?? (await this.source.take(blockBytes));
    this.checkArchiveSize();
    if (block.length === 0 && this.endMayBeMissing) return undefined;
    if (block.length < blockBytes) throw this.cut();
    // The end is two blocks of zeros; like every other reader, be content with the first.
    if (block[0] === 0 && isZero(block)) {
      await this.drain();
      return undefined;
    }
    if (!checksumHolds(block)) throw this.damaged("a header with a wrong checksum", start);
    return block;
  }

  /** The data of a header that speaks of other headers: bounded, so it may be joined. */
  private async headerData(block: Buffer): Promise<Buffer> {
    const start = this.source.offset - blockBytes;
    const length = parseField(block, 124, 12);
    if (length === undefined || length < 0) throw this.damaged("a header with an unreadable size", start);
    if (length > this.limits.maxHeaderBytes) throw this.limit("maxHeaderBytes", this.limits.maxHeaderBytes, start);
    const padded = length + (-length & (blockBytes - 1));
    const data = await this.source.take(padded);
    if (data.length < padded) throw this.cut();
    return data.subarray(0, length);
  }

  private async oldSparse(entry: TarEntry, block: Buffer, name: string): Promise<void> {
    const map = await readOldSparse(block, async () => {
      const next = await this.source.take(blockBytes);
      if (next.length < blockBytes) throw this.cut();
      return next;
    }, this.limits.maxSparseExtents, name);
    this.setSparse(entry, map.extents, map.realSize, name);
  }

  private async paxSparse(entry: TarEntry, pax: PaxRecords, name: string): Promise<void> {
    const sizeText = (pax.get("GNU.sparse.realsize") ?? pax.get("GNU.sparse.size"))?.toString("latin1") ?? "";
    const realSize = parseDecimal(sizeText);
    if (realSize === undefined) throw new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: ${name} is a sparse file without a readable size.`);
    let extents: Extent[];
    if (pax.get("GNU.sparse.major")?.toString("latin1") === "1") {
      // Format 1.0: the map stands in front of the data, in blocks of its own.
      extents = await readSparseMap(async () => {
        if (this.dataLeft < blockBytes) throw this.damaged("a sparse map that does not end", entry.offset, name);
        const next = await this.source.take(blockBytes);
        if (next.length < blockBytes) throw this.cut();
        this.dataLeft -= blockBytes;
        return next;
      }, this.limits.maxSparseExtents, name);
    } else {
      extents = parseSparseList(pax.get("GNU.sparse.map")?.toString("latin1") ?? "", this.limits.maxSparseExtents, name);
    }
    this.setSparse(entry, extents, realSize, name);
  }

  private setSparse(entry: TarEntry, extents: Extent[], realSize: number, name: string): void {
    if (realSize > this.limits.maxFileBytes) throw this.limit("maxFileBytes", this.limits.maxFileBytes, entry.offset, name);
    entry.sparse = checkExtents(extents, realSize, this.dataLeft, name);
    entry.size = realSize;
  }

  private async *content(mine: number, name: string): AsyncGenerator<Uint8Array, void, undefined> {
    for (;;) {
      if (mine !== this.entries) throw new PyroError("INTERNAL", `The content of ${name} was asked for after the next entry.`);
      if (this.dataLeft === 0) return;
      const part = this.source.partNow(this.dataLeft);
      if (part !== undefined) {
        this.dataLeft -= part.length;
        yield part;
      } else if (!(await this.source.fill())) {
        throw this.cut();
      }
    }
  }

  private async skipRest(): Promise<void> {
    while (this.dataLeft + this.paddingLeft > 0) {
      const part = this.source.partNow(this.dataLeft + this.paddingLeft);
      if (part === undefined) {
        if (await this.source.fill()) continue;
        if (this.dataLeft > 0 || !this.endMayBeMissing) throw this.cut();
        this.paddingLeft = 0;
        return;
      }
      const ofData = Math.min(part.length, this.dataLeft);
      this.dataLeft -= ofData;
      this.paddingLeft -= part.length - ofData;
    }
  }

  private async drain(): Promise<void> {
    do {
      while (this.source.partNow(Number.MAX_SAFE_INTEGER) !== undefined);
      this.checkArchiveSize();
    } while (await this.source.fill());
  }

  private attributes(entry: TarEntry, pax: PaxRecords, name: string): void {
    const xattrs = new Map<string, Buffer>();
    let bytes = 0;
    const put = (key: string, value: Buffer) => {
      bytes += key.length + value.length;
      xattrs.set(key, value);
      if (xattrs.size > this.limits.maxXattrs) throw this.limit("maxXattrs", this.limits.maxXattrs, entry.offset, name);
      if (bytes > this.limits.maxXattrBytes) throw this.limit("maxXattrBytes", this.limits.maxXattrBytes, entry.offset, name);
    };
    for (const [key, value] of pax) {
      // SCHILY's are raw bytes; LIBARCHIVE's are the same again in base64 under a percent-encoded name, and stand back.
      if (key.startsWith("SCHILY.xattr.")) put(key.slice(13), value);
      else if (key.startsWith("LIBARCHIVE.xattr.")) {
        const attribute = key.slice(17).replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
        if (!pax.has(`SCHILY.xattr.${attribute}`)) put(attribute, Buffer.from(value.toString("latin1"), "base64"));
      } else if (key === "SCHILY.acl.access") entry.acl = { ...entry.acl, access: value.toString("latin1") };
      else if (key === "SCHILY.acl.default") entry.acl = { ...entry.acl, default: value.toString("latin1") };
    }
    if (xattrs.size > 0) entry.xattrs = xattrs;
  }

  private size(pax: Buffer | undefined, block: Buffer, offset: number, name: string): number {
    const size = pax === undefined ? parseField(block, offset, 12) : parseDecimal(pax.toString("latin1"));
    if (size === undefined || size < 0) throw new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: ${name} has an unreadable size.`);
    if (size > this.limits.maxFileBytes) throw this.limit("maxFileBytes", this.limits.maxFileBytes, this.source.offset, name);
    return size;
  }

  private id(pax: Buffer | undefined, block: Buffer, offset: number, what: string, name: string): number {
    const id = pax === undefined ? parseField(block, offset, 8) : parseDecimal(pax.toString("latin1"));
    if (id === undefined || id < 0 || id > 0xffffffff) throw new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: the ${what} of ${name} is no number from 0 to 4294967295.`);
    return id;
  }

  private time(pax: Buffer | undefined, block: Buffer, name: string): { seconds: number; nanoseconds: number } {
    const seconds = pax === undefined ? parseField(block, 136, 12) : undefined;
    const time = pax === undefined ? (seconds === undefined ? undefined : { seconds, nanoseconds: 0 }) : parseTime(pax.toString("latin1"));
    if (time === undefined) throw new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: ${name} has an unreadable modification time.`);
    return time;
  }

  private field(block: Buffer, offset: number, length: number, what: string, name: string): number {
    const value = parseField(block, offset, length);
    if (value === undefined || value < 0) throw new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: ${name} has an unreadable ${what}.`);
    return value;
  }

  private checkPath(path: Buffer, name: string): void {
    if (path.length > this.limits.maxPathBytes) throw this.limit("maxPathBytes", this.limits.maxPathBytes, this.source.offset, name);
    if (path.includes(0)) throw new PyroError("ENVIRONMENT_INVALID", `The archive is damaged: ${name} has a NUL in its path or link target.`);
  }

  private checkArchiveSize(): void {
    if (this.source.offset > this.limits.maxArchiveBytes) throw this.limit("maxArchiveBytes", this.limits.maxArchiveBytes, this.source.offset);
  }

  private cut(): PyroError {
    return new PyroError("ENVIRONMENT_INVALID", `The archive is cut off after ${this.source.offset} bytes.`, { hint: "Get the archive again." });
  }

  private damaged(what: string, offset: number, name?: string): PyroError {
    return new PyroError("ENVIRONMENT_INVALID", `The archive is damaged, or no tar archive: ${what} at ${name ?? at(offset)}.`);
  }

  private limit(name: string, value: number, offset: number, entry?: string): PyroError {
    return new PyroError("ENVIRONMENT_INVALID", `The archive is over the limit ${name} (${value}) at ${entry ?? at(offset)}.`);
  }
}

/** Extended headers in front of one entry; real archives have at most three. */
const maxHeadersPerEntry = 16;
/** Of all global extended headers together, which are kept to the archive's end: their records, and the bytes of these. */
const maxGlobalRecords = 1024;
const maxGlobalBytes = 1 << 20;
const noXattrs: ReadonlyMap<string, Buffer> = new Map();
const noContent: AsyncIterable<Uint8Array> = { [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true, value: undefined }) }) };

function entryType(kind: string, path: Buffer): TarEntryType | undefined {
  switch (kind) {
    case "\0":
    case "0":
      // v7 had no type for directories: their names end in a slash.
      return path[path.length - 1] === 0x2f ? "directory" : "file";
    case "7":
    case "S":
      return "file";
    case "1":
      return "hardlink";
    case "2":
      return "symlink";
    case "3":
      return "character";
    case "4":
      return "block";
    case "5":
    case "D": // GNU's incremental archives: a directory, with a list of names as its data
      return "directory";
    case "6":
      return "fifo";
  }
  return undefined;
}

/** Other types have no data whatever their size field says (as GNU tar, Go and Python have it for links; POSIX for the rest). */
function hasData(kind: string): boolean {
  return kind === "0" || kind === "\0" || kind === "7" || kind === "S" || kind === "D";
}

function headerPath(block: Buffer): Buffer {
  const name = untilNul(block.subarray(0, 100));
  // "ustar\0" has the prefix field; GNU's "ustar  \0" keeps other things there.
  if (block[257] !== 0x75 || block.toString("latin1", 257, 263) !== "ustar\0" || block[345] === 0) return name;
  return Buffer.concat([untilNul(block.subarray(345, 500)), Buffer.from("/"), name]);
}

function untilNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end === -1 ? bytes : bytes.subarray(0, end);
}

function isZero(block: Buffer): boolean {
  for (let index = 0; index < block.length; index++) if (block[index] !== 0) return false;
  return true;
}

/** The sum of all bytes with the checksum field taken as spaces; some old programs summed signed bytes. */
function checksumHolds(block: Buffer): boolean {
  const expected = parseField(block, 148, 8);
  if (expected === undefined) return false;
  let unsigned = 0;
  let high = 0;
  for (let index = 0; index < blockBytes; index++) {
    const byte = index >= 148 && index < 156 ? 0x20 : block[index]!;
    unsigned += byte;
    high += byte >> 7;
  }
  return expected === unsigned || expected === unsigned - 256 * high;
}

function at(offset: number): string {
  return `byte ${offset}`;
}

function recordBytes(records: PaxRecords): number {
  let bytes = 0;
  for (const [key, value] of records) bytes += key.length + value.length;
  return bytes;
}
