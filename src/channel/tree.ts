/** A tree of files on its way into or out of a guest: what both directions have in common. protocol/PROTOCOL.md, "Trees". */
import { Buffer } from "node:buffer";
import { MAX_PAYLOAD } from "./codec.js";

export const MAX_TREE_DEPTH = 1024;
export const MAX_TREE_ENTRIES = 1_000_000;
export const MAX_TREE_LINKS = 65_536;
export const MAX_TREE_LINK_BYTES = 16_777_216;
export const MAX_TREE_PATH_BYTES = 4095;
export const MAX_TREE_NAME_BYTES = 255;

export const Record = { ENTRY: 0x01, HARD_LINK: 0x02, CHUNK: 0x03, HOLE: 0x04, END_FILE: 0x05, END: 0xff } as const;

export type TreeEntryType = "file" | "directory" | "link" | "fifo";

/**
 * One file, directory, link or fifo. Entries come depth first: the root, whose path is empty, then what is in it, each behind its directory
 * and before that directory's next sibling. A tree of one file has only a root.
 */
export interface TreeEntry {
  /** Relative to the root: names joined by `/`, of any bytes but NUL and `/`, none of them empty, `.` or `..`. Nothing says that it comes only once. */
  path: Buffer;
  type: TreeEntryType;
  /** Permission bits with set-user-id, set-group-id and sticky. */
  mode: number;
  uid: number;
  gid: number;
  mtimeNs: bigint;
  /** As it was when the copying of the file began. The content is what counts: it may turn out shorter, or longer from a host. */
  sizeBytes: bigint;
  /** Where a link points: any bytes but NUL, at least one. From a guest it may point anywhere. */
  target?: Buffer;
  /** The path of an earlier file, which this is another name of. */
  hardLinkTo?: Buffer;
  /**
   * Of a file that is no hard link; empty where it is left out. From a guest: to be read before the next entry is asked for, the rest is skipped then.
   * Holes are zeros, see `isHole`.
   */
  content?: AsyncIterable<Buffer>;
}

export interface TreeTotals {
  entries: number;
  /** Holes included. */
  contentBytes: bigint;
  /** Devices and sockets, which can't be copied, and directories that other file systems are mounted on, which come empty. */
  skipped: number;
}

export const ZEROS = Buffer.alloc(MAX_PAYLOAD);

/** A chunk of content that is a hole in its file: it can be left out of a copy as long as the copy's size is right. */
export function isHole(chunk: Buffer): boolean {
  return chunk.buffer === ZEROS.buffer && chunk.byteOffset === ZEROS.byteOffset;
}

export const typeBits: Readonly<Record<TreeEntryType, number>> = { file: 0o100000, directory: 0o040000, link: 0o120000, fifo: 0o010000 };

/** Whether each entry comes where it may. Whatever is above an entry was checked when it came itself, so that no path can lead out of the tree. */
export class TreeOrder {
  entries = 0;
  /** Paths of the directories that are open, the root first. */
  readonly #open: string[] = [];

  /** What is wrong with the place of this entry, or undefined. */
  take(path: Buffer, isDirectory: boolean): string | undefined {
    const text = path.toString("latin1");
    if (++this.entries > MAX_TREE_ENTRIES) return `over ${MAX_TREE_ENTRIES} entries (MAX_TREE_ENTRIES)`;
    if (path.length > MAX_TREE_PATH_BYTES) return `a path of over ${MAX_TREE_PATH_BYTES} bytes`;
    if (this.entries === 1) {
      if (text !== "") return "a tree that does not begin with its root";
    } else {
      const slash = text.lastIndexOf("/");
      const name = text.slice(slash + 1);
      if (name === "" || name === "." || name === ".." || name.length > MAX_TREE_NAME_BYTES || text.includes("\0")) return "a name that no file can have";
      const parent = text.slice(0, Math.max(slash, 0));
      if (slash === 0 || !this.#open.includes(parent)) return "an entry outside the directories that are open";
      while (this.#open.at(-1) !== parent) this.#open.pop();
    }
    if (!isDirectory) return undefined;
    return this.#open.push(text) > MAX_TREE_DEPTH ? `over ${MAX_TREE_DEPTH} levels (MAX_TREE_DEPTH)` : undefined;
  }
}
