/** The second half of an image: everything but the files' contents, laid out and written once the tree is complete. */
import { PyroError } from "../base/error.js";
import { blockBytes, type BlockFile } from "./block-file.js";
import {
  align, dataLayout, encodeChunkInfo, encodeChunks, encodeDevice, encodeDirectoryBlock, encodeInode, encodeSuperblock, encodeXattrs, inodeBytes,
  planDirectory, rootNid, slotBytes, unionNone, xattrAreaBytes, type DataLayout, type DirectoryEntry, type DirectoryPlan, type SuperblockFacts,
} from "./erofs-layout.js";
import type { Inode } from "./tree.js";

/** An inode with its place in the image. */
interface Placed {
  inode: Inode;
  parent: Placed | undefined;
  links: number;
  nid: number;
  number: number;
  layout: DataLayout;
  xattrBytes: number;
  sizeBytes: number;
  /** First block of a directory's or a long symlink's data. */
  block: number;
  /** Bytes that stand behind the inode and its attributes. */
  tailBytes: number;
  /** Of directories. */
  names?: string[];
  plan?: DirectoryPlan;
}

/**
 * Writes directories, inodes, attributes and symlinks behind the data in `file`, then the first block. Returns the number of inodes.
 * Layout: first block (superblock, root inode) · file data · whole directory blocks and long symlinks · inodes with their tails.
 */
export async function writeMetadata(file: BlockFile, root: Inode, facts: Omit<SuperblockFacts, "inodes" | "blocks" | "chunked">): Promise<number> {
  const { order, places } = collect(root);
  placeBlocks(order, file.length / blockBytes);
  const chunked = order.some((each) => each.layout === dataLayout.chunked);
  const end = placeInodes(order, blocksEnd(order, file.length / blockBytes) * blockBytes);
  await writeBlocks(file, order, places);
  await writeInodes(file, order, places);
  if (file.length > align(end, blockBytes)) throw new PyroError("INTERNAL", "The image's metadata came out longer than was planned.");
  await file.align(blockBytes);
  const first = Buffer.alloc(blockBytes);
  writeInode(first, rootNid * slotBytes, order[0]!, places);
  encodeSuperblock(first, { ...facts, inodes: order.length, blocks: file.length / blockBytes, chunked });
  await file.finish(first);
  return order.length;
}

/** All inodes, breadth first, so that those of one directory lie together; links are counted. */
function collect(root: Inode): { order: Placed[]; places: Map<Inode, Placed> } {
  const order: Placed[] = [];
  const places = new Map<Inode, Placed>();
  const add = (inode: Inode, parent: Placed | undefined): Placed => {
    const placed: Placed = {
      inode, parent, links: 0, nid: 0, number: order.length + 1, layout: dataLayout.plain, xattrBytes: xattrAreaBytes(inode.attributes.xattrs), sizeBytes: 0, block: unionNone, tailBytes: 0,
    };
    places.set(inode, placed);
    order.push(placed);
    return placed;
  };
  add(root, undefined).links = 2;
  for (const placed of order) {
    const { shape } = placed.inode;
    if (shape.type !== "directory") continue;
    placed.names = [".", "..", ...shape.children.keys()].sort();
    for (const name of placed.names) {
      if (name === "." || name === "..") continue;
      const child = shape.children.get(name)!;
      const present = places.get(child) ?? add(child, placed);
      present.links++;
      if (child.shape.type === "directory") {
        present.links++;
        placed.links++;
      }
    }
  }
  return { order, places };
}

/** Chooses each inode's layout and gives out the blocks that directories and long symlinks need. */
function placeBlocks(order: readonly Placed[], firstBlock: number): void {
  let block = firstBlock;
  for (const placed of order) {
    const { shape } = placed.inode;
    let whole = 0;
    let tail = 0;
    switch (shape.type) {
      case "directory":
        placed.plan = planDirectory(placed.names!);
        whole = placed.plan.starts.length - 1;
        tail = placed.plan.lastBytes;
        placed.sizeBytes = whole * blockBytes + tail;
        break;
      case "symlink":
        tail = placed.sizeBytes = shape.target.length;
        break;
      case "file":
        placed.sizeBytes = shape.content.sizeBytes;
        if ("chunks" in shape.content) {
          placed.layout = dataLayout.chunked;
          placed.tailBytes = shape.content.chunks.length * 4;
        }
        continue;
      default:
        continue;
    }
    // Linux wants inline data in one block, and for symlinks (erofs_fill_symlink) the inode and its attributes in the same.
    // The root shares its block with the superblock, so its data stays out.
    const room = placed.parent === undefined ? 0 : blockBytes - inodeBytes - placed.xattrBytes;
    if (tail <= room) {
      placed.layout = dataLayout.inline;
      placed.tailBytes = tail;
    } else {
      whole++;
    }
    if (whole > 0) placed.block = block;
    block += whole;
  }
}

function blocksEnd(order: readonly Placed[], firstBlock: number): number {
  let end = firstBlock;
  for (const placed of order) end += blocksOf(placed);
  return end;
}

function blocksOf(placed: Placed): number {
  if (placed.block === unionNone) return 0;
  const whole = placed.sizeBytes / blockBytes;
  return placed.layout === dataLayout.inline ? Math.floor(whole) : Math.ceil(whole);
}

/** Gives every inode but the root's a number, which is its place. Returns the end of the last. */
function placeInodes(order: readonly Placed[], start: number): number {
  let at = start;
  for (const placed of order) {
    if (placed.parent === undefined) {
      placed.nid = rootNid;
      continue;
    }
    const bytes = inodeBytes + placed.xattrBytes + placed.tailBytes;
    const together = placed.layout === dataLayout.inline ? bytes : inodeBytes;
    if ((at % blockBytes) + together > blockBytes) at = align(at, blockBytes);
    placed.nid = at / slotBytes;
    at = align(at + bytes, slotBytes);
  }
  return at;
}

async function writeBlocks(file: BlockFile, order: readonly Placed[], places: ReadonlyMap<Inode, Placed>): Promise<void> {
  for (const placed of order) {
    const count = blocksOf(placed);
    if (count === 0) continue;
    if (file.length !== placed.block * blockBytes) throw new PyroError("INTERNAL", "The image's directories are not where they were planned.");
    const { shape } = placed.inode;
    if (shape.type === "symlink") {
      await file.append(shape.target);
      await file.align(blockBytes);
    } else {
      const entries = directoryEntries(placed, places);
      const block = Buffer.alloc(blockBytes);
      for (let index = 0; index < count; index++) {
        block.fill(0);
        encodeDirectoryPart(block, 0, placed, entries, index);
        await file.append(block);
      }
    }
  }
}

async function writeInodes(file: BlockFile, order: readonly Placed[], places: ReadonlyMap<Inode, Placed>): Promise<void> {
  for (const placed of order) {
    if (placed.parent === undefined) continue;
    await file.zeros(placed.nid * slotBytes - file.length);
    const out = Buffer.alloc(inodeBytes + placed.xattrBytes + (placed.layout === dataLayout.inline ? placed.tailBytes : 0));
    writeInode(out, 0, placed, places);
    await file.append(out);
    const { shape } = placed.inode;
    if (shape.type === "file" && "chunks" in shape.content) await file.append(encodeChunks(shape.content.chunks));
  }
}

/** Inode, attributes and inline data. `out` must be zeroed. */
function writeInode(out: Buffer, at: number, placed: Placed, places: ReadonlyMap<Inode, Placed>): void {
  const { inode, xattrBytes } = placed;
  encodeInode(out, at, inode, xattrBytes, { layout: placed.layout, sizeBytes: placed.sizeBytes, union: union(placed), number: placed.number, links: placed.links });
  if (xattrBytes > 0) encodeXattrs(out, at + inodeBytes, inode.attributes.xattrs);
  if (placed.layout !== dataLayout.inline) return;
  const tail = at + inodeBytes + xattrBytes;
  if (inode.shape.type === "symlink") inode.shape.target.copy(out, tail);
  else encodeDirectoryPart(out, tail, placed, directoryEntries(placed, places), placed.plan!.starts.length - 1);
}

function union(placed: Placed): number {
  const { shape } = placed.inode;
  if (shape.type === "character" || shape.type === "block") return encodeDevice(shape.device);
  if (shape.type !== "file") return placed.block;
  if ("left" in shape.content) throw new PyroError("INTERNAL", "The image lacks the content of a file.");
  return "chunks" in shape.content ? encodeChunkInfo(shape.content.chunkBits) : shape.content.block >>> 0;
}

function directoryEntries(placed: Placed, places: ReadonlyMap<Inode, Placed>): DirectoryEntry[] {
  const { shape } = placed.inode;
  if (shape.type !== "directory") throw new PyroError("INTERNAL", "Only directories have entries.");
  return placed.names!.map((name) => {
    if (name === ".") return { name, nid: placed.nid, type: "directory" };
    if (name === "..") return { name, nid: (placed.parent ?? placed).nid, type: "directory" };
    const child = places.get(shape.children.get(name)!)!;
    return { name, nid: child.nid, type: child.inode.shape.type };
  });
}

function encodeDirectoryPart(out: Buffer, at: number, placed: Placed, entries: readonly DirectoryEntry[], index: number): void {
  const { starts } = placed.plan!;
  encodeDirectoryBlock(out, at, entries, starts[index]!, starts[index + 1] ?? entries.length);
}
