/** A second, independent opinion on an EROFS image: reads one the way Linux 6.1 would (flat, inline and chunk-based inodes). */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

export interface ReadInode {
  type: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  seconds: number;
  nanoseconds: number;
  links: number;
  nid: number;
  device?: [number, number];
  target?: string;
  sha256?: string;
  content?: Buffer;
  xattrs: Record<string, string>;
}

const types: Record<number, string> = { 0o01: "fifo", 0o02: "character", 0o04: "directory", 0o06: "block", 0o10: "file", 0o12: "symlink" };
const fileTypes: Record<number, string> = { 1: "file", 2: "directory", 3: "character", 4: "block", 5: "fifo", 7: "symlink" };
const prefixes: Record<number, string> = { 1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security." };

/** Every path of the image (latin1, the root is ""), with what it is. Attribute values in hexadecimal. Checks the format on the way. */
export function readErofs(path: string): Map<string, ReadInode> {
  const image = readFileSync(path);
  if (image.length % 4096 !== 0) throw new Error("not whole blocks");
  if (image.readUInt32LE(1024) !== 0xe0f5e1e2) throw new Error("magic");
  if (image.readUInt32LE(1024 + 36) * 4096 !== image.length) throw new Error("block count");
  const base = image.readUInt32LE(1024 + 40) * 4096;
  const found = new Map<string, ReadInode>();
  const inodes = new Set<number>();
  const visit = (nid: number, name: string, parent: number, said: string | undefined) => {
    const { inode, data } = readInode(image, base, nid);
    if (said !== undefined && said !== inode.type) throw new Error(`${name}: directory says ${said}, inode ${inode.type}`);
    found.set(name, inode);
    inodes.add(nid);
    if (inode.type !== "directory") return;
    const names: string[] = [];
    for (let start = 0; start < data.length; start += 4096) {
      const block = data.subarray(start, start + 4096);
      const count = block.readUInt16LE(8) / 12;
      for (let index = 0; index < count; index++) {
        const from = block.readUInt16LE(index * 12 + 8);
        const to = index + 1 < count ? block.readUInt16LE(index * 12 + 20) : block.length;
        const child = block.subarray(from, to).toString("latin1").replace(/\0+$/, "");
        names.push(child);
        const childNid = Number(block.readBigUInt64LE(index * 12));
        if (child === "." && childNid !== nid) throw new Error(`${name}/. is ${childNid}`);
        else if (child === ".." && childNid !== parent) throw new Error(`${name}/.. is ${childNid}`);
        else if (child !== "." && child !== "..") visit(childNid, name === "" ? child : `${name}/${child}`, nid, fileTypes[block[index * 12 + 10]!]!);
      }
    }
    for (let index = 1; index < names.length; index++) if (names[index - 1]! >= names[index]!) throw new Error(`${name}: ${names[index]} is out of order`);
  };
  const root = image.readUInt16LE(1024 + 14);
  visit(root, "", root, "directory");
  if (Number(image.readBigUInt64LE(1024 + 16)) !== inodes.size) throw new Error("inode count");
  return found;
}

function readInode(image: Buffer, base: number, nid: number): { inode: ReadInode; data: Buffer } {
  const at = base + nid * 32;
  const format = image.readUInt16LE(at);
  if ((format & 1) !== 1) throw new Error(`inode ${nid} is not extended`);
  const count = image.readUInt16LE(at + 2);
  const xattrBytes = count === 0 ? 0 : 12 + (count - 1) * 4;
  const mode = image.readUInt16LE(at + 4);
  const size = Number(image.readBigUInt64LE(at + 8));
  const union = image.readUInt32LE(at + 16);
  const type = types[mode >> 12];
  if (type === undefined) throw new Error(`inode ${nid} has mode ${mode.toString(8)}`);
  const inode: ReadInode = {
    type, mode: mode & 0o7777, uid: image.readUInt32LE(at + 24), gid: image.readUInt32LE(at + 28), size,
    seconds: Number(image.readBigInt64LE(at + 32)), nanoseconds: image.readUInt32LE(at + 40), links: image.readUInt32LE(at + 44), nid,
    xattrs: readXattrs(image, at + 64, xattrBytes),
  };
  if (type === "character" || type === "block") inode.device = [(union >> 8) & 0xfff, (union & 0xff) | ((union >>> 12) & 0xfff00)];
  const tail = at + 64 + xattrBytes;
  const data = type === "file" || type === "directory" || type === "symlink" ? readData(image, (format >> 1) & 7, size, union, tail) : Buffer.alloc(0);
  if (type === "symlink") inode.target = data.toString("latin1");
  if (type === "file") {
    inode.sha256 = createHash("sha256").update(data).digest("hex");
    inode.content = data;
  }
  return { inode, data };
}

function readData(image: Buffer, layout: number, size: number, union: number, tail: number): Buffer {
  if (layout === 0) return size === 0 ? Buffer.alloc(0) : whole(image, union * 4096, size);
  if (layout === 2) {
    const blocks = Math.ceil(size / 4096) - 1;
    const inline = size - blocks * 4096;
    if (Math.floor(tail / 4096) !== Math.floor((tail + inline - 1) / 4096)) throw new Error("inline data crosses a block");
    return Buffer.concat([blocks === 0 ? Buffer.alloc(0) : whole(image, union * 4096, blocks * 4096), image.subarray(tail, tail + inline)]);
  }
  if (layout !== 4 || (image.readUInt32LE(1024 + 80) & 4) === 0) throw new Error(`layout ${layout}`);
  const chunkBytes = 4096 * 2 ** (union & 0x1f);
  const out = Buffer.alloc(size);
  for (let index = 0; index * chunkBytes < size; index++) {
    const block = image.readUInt32LE(tail + index * 4);
    if (block !== 0xffffffff) whole(image, block * 4096, Math.min(chunkBytes, size - index * chunkBytes)).copy(out, index * chunkBytes);
  }
  return out;
}

function whole(image: Buffer, at: number, size: number): Buffer {
  const data = image.subarray(at, at + size);
  if (data.length !== size) throw new Error("data beyond the image's end");
  return data;
}

function readXattrs(image: Buffer, at: number, bytes: number): Record<string, string> {
  const xattrs: Record<string, string> = {};
  if (bytes === 0) return xattrs;
  const end = at + bytes;
  if (image[at + 4] !== 0) throw new Error("shared attributes are not expected");
  for (let entry = at + 12; entry < end; ) {
    const nameBytes = image[entry]!;
    const valueBytes = image.readUInt16LE(entry + 2);
    const prefix = prefixes[image[entry + 1]!];
    if (prefix === undefined) throw new Error("attribute name space");
    const name = prefix + image.toString("latin1", entry + 4, entry + 4 + nameBytes);
    xattrs[name] = image.toString("hex", entry + 4 + nameBytes, entry + 4 + nameBytes + valueBytes);
    entry += (4 + nameBytes + valueBytes + 3) & ~3;
  }
  return xattrs;
}
