/**
 * The structures of EROFS on disk, as Linux has them in Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. Only what
 * Linux 6.1 mounts: 4 KiB blocks, extended inodes, flat and chunk-based files, no compression.
 */
import { PyroError } from "../base/error.js";
import { crc32c } from "./crc32c.js";
import { blockBytes } from "./block-file.js";
import type { Inode } from "./tree.js";

/** `EROFS_SUPER_OFFSET`. */
const superblockOffset = 1024;
/** Inode numbers (nid) count slots of 32 bytes from the metadata's start, which is the image's start here. */
export const slotBytes = 32;
/** The root's number has only 16 bits in the superblock, so its inode lies in the first block, right behind the superblock. */
export const rootNid = (superblockOffset + 128) / slotBytes;
/** `struct erofs_inode_extended`. */
export const inodeBytes = 64;
/** `struct erofs_dirent`. */
const direntBytes = 12;

/** `i_format`: extended, with one of the data layouts. */
export const dataLayout = { plain: 0, inline: 2, chunked: 4 } as const;
export type DataLayout = (typeof dataLayout)[keyof typeof dataLayout];

const noBlock = 0xffffffff;

/** What `encodeInode` needs besides the inode itself. */
export interface InodePlace {
  layout: DataLayout;
  sizeBytes: number;
  /** `i_u`: the first block, the device, or the chunks' format. */
  union: number;
  number: number;
  links: number;
}

/** `struct erofs_inode_extended`, written to `out` at `at`. */
export function encodeInode(out: Buffer, at: number, inode: Inode, xattrBytes: number, place: InodePlace): void {
  const { attributes, shape } = inode;
  out.writeUInt16LE(1 | (place.layout << 1), at);
  out.writeUInt16LE(xattrBytes === 0 ? 0 : (xattrBytes - xattrHeaderBytes) / 4 + 1, at + 2);
  out.writeUInt16LE(typeBits[shape.type] | attributes.mode, at + 4);
  out.writeUInt16LE(0, at + 6);
  write64(out, at + 8, place.sizeBytes);
  out.writeUInt32LE(place.union, at + 16);
  out.writeUInt32LE(place.number, at + 20);
  out.writeUInt32LE(attributes.uid, at + 24);
  out.writeUInt32LE(attributes.gid, at + 28);
  write64(out, at + 32, attributes.mtime.seconds);
  out.writeUInt32LE(attributes.mtime.nanoseconds, at + 40);
  out.writeUInt32LE(place.links, at + 44);
  out.fill(0, at + 48, at + 64);
}

/** S_IFMT of each type. */
const typeBits: Record<Inode["shape"]["type"], number> = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  pending: 0,
};

/** What an inode of this `i_mode` is; undefined for what is never written. */
export function typeOfMode(mode: number): Exclude<Inode["shape"]["type"], "pending"> | undefined {
  return (Object.keys(typeBits) as Exclude<Inode["shape"]["type"], "pending">[]).find((type) => typeBits[type] !== 0 && typeBits[type] === (mode & 0o170000));
}

/** `EROFS_FT_*`. */
const fileTypes: Record<Inode["shape"]["type"], number> = { file: 1, directory: 2, character: 3, block: 4, fifo: 5, symlink: 7, pending: 0 };

/** `EROFS_FT_DIR` */
export const directoryFileType = 2;

/** Linux's `new_encode_dev`: 12 bits of major, 20 of minor. */
export function encodeDevice(device: { major: number; minor: number }): number {
  return ((device.minor & 0xff) | (device.major << 8) | ((device.minor & ~0xff) << 12)) >>> 0;
}

export function decodeDevice(union: number): { major: number; minor: number } {
  return { major: (union >>> 8) & 0xfff, minor: (union & 0xff) | ((union >>> 12) & 0xfff00) };
}

/** `i_u` of a file without blocks. */
export const unionNone = noBlock;

/** `struct erofs_inode_chunk_info`: a chunk is a block shifted by `chunkBits`; its map is a plain array of block addresses. */
export function encodeChunkInfo(chunkBits: number): number {
  return chunkBits & 0x1f;
}

/** The array of block addresses behind a chunk-based inode; -1 is `EROFS_NULL_ADDR`, a hole. */
export function encodeChunks(chunks: Int32Array): Buffer {
  const out = Buffer.allocUnsafe(chunks.length * 4);
  for (let index = 0; index < chunks.length; index++) out.writeInt32LE(chunks[index]!, index * 4);
  return out;
}

/** `struct erofs_xattr_ibody_header`. */
const xattrHeaderBytes = 12;

/** `EROFS_XATTR_INDEX_*`: the part of the name that is stored as a number. The two ACLs are whole names. */
const xattrPrefixes: readonly [prefix: string, index: number][] = [
  ["user.", 1],
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["trusted.", 4],
  ["security.", 6],
];

/** Index and rest of an attribute's name; undefined for name spaces that EROFS (and Linux) don't have. */
export function splitXattrName(name: string): { index: number; rest: string } | undefined {
  for (const [prefix, index] of xattrPrefixes) {
    if (prefix.endsWith(".") ? name.startsWith(prefix) && name.length > prefix.length : name === prefix) return { index, rest: name.slice(prefix.length) };
  }
  return undefined;
}

/** Most bytes that `i_xattr_icount` can say. */
export const maxXattrAreaBytes = xattrHeaderBytes + 4 * 0xfffe;

/** Bytes that an inode's attributes take behind it; 0 without attributes. */
export function xattrAreaBytes(xattrs: ReadonlyMap<string, Buffer>): number {
  let bytes = 0;
  for (const [name, value] of xattrs) bytes += align(4 + splitXattrName(name)!.rest.length + value.length, 4);
  return bytes === 0 ? 0 : xattrHeaderBytes + bytes;
}

/** `struct erofs_xattr_ibody_header` and the entries, all of them the inode's own. `out` must be zeroed. */
export function encodeXattrs(out: Buffer, at: number, xattrs: ReadonlyMap<string, Buffer>): void {
  at += xattrHeaderBytes;
  const sorted = [...xattrs].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [name, value] of sorted) {
    const { index, rest } = splitXattrName(name)!;
    out.writeUInt8(rest.length, at);
    out.writeUInt8(index, at + 1);
    out.writeUInt16LE(value.length, at + 2);
    out.write(rest, at + 4, "latin1");
    value.copy(out, at + 4 + rest.length);
    at += align(4 + rest.length + value.length, 4);
  }
}

/** Bytes of the attributes behind an inode, by its `i_xattr_icount`. */
export function xattrBytesOf(count: number): number {
  return count === 0 ? 0 : xattrHeaderBytes + (count - 1) * 4;
}

/** What `encodeXattrs` wrote. Throws ENVIRONMENT_INVALID. */
export function parseXattrs(area: Buffer): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (let at = xattrHeaderBytes; at < area.length; ) {
    const nameBytes = area.readUInt8(at);
    const valueBytes = area.readUInt16LE(at + 2);
    const prefix = xattrPrefixes.find(([, index]) => index === area.readUInt8(at + 1))?.[0];
    const valueAt = at + 4 + nameBytes;
    if (prefix === undefined || valueAt + valueBytes > area.length) throw new PyroError("ENVIRONMENT_INVALID", "The disk image is damaged: an extended attribute in it is none.");
    found.set(prefix + area.toString("latin1", at + 4, valueAt), Buffer.from(area.subarray(valueAt, valueAt + valueBytes)));
    at = align(valueAt + valueBytes, 4);
  }
  return found;
}

/** One name in a directory. */
export interface DirectoryEntry {
  /** latin1 */
  name: string;
  nid: number;
  type: Inode["shape"]["type"];
}

/** Where each block of a directory begins in its sorted names, and the bytes the last one uses. */
export interface DirectoryPlan {
  starts: number[];
  lastBytes: number;
}

/** Packs names, sorted by bytes, `.` and `..` among them, into blocks: an entry and its name never leave their block. */
export function planDirectory(names: readonly string[]): DirectoryPlan {
  const starts = [0];
  let used = 0;
  for (let index = 0; index < names.length; index++) {
    const bytes = direntBytes + names[index]!.length;
    if (used + bytes > blockBytes) {
      starts.push(index);
      used = 0;
    }
    used += bytes;
  }
  return { starts, lastBytes: used };
}

/** One block of a directory: `struct erofs_dirent` for entries `from` to `to`, then their names without terminators. `out` must be zeroed. */
export function encodeDirectoryBlock(out: Buffer, at: number, entries: readonly DirectoryEntry[], from: number, to: number): void {
  let nameOffset = (to - from) * direntBytes;
  for (let index = from; index < to; index++) {
    const { name, nid, type } = entries[index]!;
    const dirent = at + (index - from) * direntBytes;
    write64(out, dirent, nid);
    out.writeUInt16LE(nameOffset, dirent + 8);
    out.writeUInt8(fileTypes[type], dirent + 10);
    out.write(name, at + nameOffset, "latin1");
    nameOffset += name.length;
  }
}

export interface SuperblockFacts {
  inodes: number;
  blocks: number;
  /** Seconds since 1970; only compact inodes take their time from it, and there are none. */
  buildTime: number;
  /** 16 bytes. */
  uuid: Uint8Array;
  /** At most 15 bytes. */
  volumeName: string;
  chunked: boolean;
}

/** `struct erofs_super_block` into the image's first block, with the checksum over the rest of the block from there on. */
export function encodeSuperblock(block: Buffer, facts: SuperblockFacts): void {
  const at = superblockOffset;
  block.writeUInt32LE(0xe0f5e1e2, at);
  block.writeUInt32LE(0, at + 4);
  block.writeUInt32LE(0x1 | 0x2, at + 8); // EROFS_FEATURE_COMPAT_SB_CHKSUM, _MTIME
  block.writeUInt8(12, at + 12); // blkszbits
  block.writeUInt16LE(rootNid, at + 14);
  write64(block, at + 16, facts.inodes);
  write64(block, at + 24, facts.buildTime);
  block.writeUInt32LE(facts.blocks, at + 36);
  block.set(facts.uuid, at + 48);
  block.write(facts.volumeName, at + 64, 15, "latin1");
  block.writeUInt32LE(facts.chunked ? 0x4 : 0, at + 80); // EROFS_FEATURE_INCOMPAT_CHUNKED_FILE
  block.writeUInt32LE(crc32c(block.subarray(at)), at + 4);
}

export function align(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** A safe integer, negative ones in two's complement. */
function write64(out: Buffer, at: number, value: number): void {
  const high = Math.floor(value / 2 ** 32);
  out.writeUInt32LE(value - high * 2 ** 32, at);
  out.writeInt32LE(high, at + 4);
}
