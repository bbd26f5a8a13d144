/**
 * A file tree in memory, without the files' contents: what a root file system will look like. Sources (a tar archive, the layers
 * of an image) put entries in; an image writer takes the finished tree.
 */
import { PyroError } from "../base/error.js";
import { showPath } from "./show-path.js";

/** What a file is besides its type, as the guest will see it. */
export interface Attributes {
  /** 0 to 0o7777. */
  mode: number;
  uid: number;
  gid: number;
  mtime: { seconds: number; nanoseconds: number };
  /** By full name; names as latin1. */
  xattrs: ReadonlyMap<string, Buffer>;
}

/**
 * Where a regular file's bytes are in the image. `block` and `chunks` count blocks of the image; -1 in `chunks` is a hole.
 * `left` is of bytes that were not written, as nothing seemed to need them.
 */
export type Content = { sizeBytes: number; block: number } | { sizeBytes: number; chunkBits: number; chunks: Int32Array } | { sizeBytes: number; left: true };

export type Shape =
  | { type: "directory"; children: Map<string, Inode> }
  | { type: "file"; content: Content }
  | { type: "symlink"; target: Buffer }
  | { type: "character" | "block"; device: { major: number; minor: number } }
  | { type: "fifo" }
  /** A hard link to a name that has not come yet; `resolveLinks` replaces it. `otherwise`: what it leads to if none comes. */
  | { type: "pending"; target: Buffer; otherwise?: Inode | undefined };

/** One file. Several names can hold the same object: those are hard links. */
export interface Inode {
  attributes: Attributes;
  shape: Shape;
}

type Directory = Inode & { shape: { type: "directory" } };

/** What a tree may grow to. An archive of a few megabytes can name millions of directories by their children alone. */
export interface TreeLimits {
  /** Bytes of memory, about: names, link targets, attributes, chunk maps, and `inodeBytes` for each inode. */
  maxMetadataBytes: number;
  /** Files of all types, those included that only exist as something else's parent. */
  maxInodes: number;
  /** Names in a path. */
  maxDepth: number;
}

export const treeLimits: Readonly<TreeLimits> = { maxMetadataBytes: 2 ** 29, maxInodes: 800_000, maxDepth: 256 };

/** What an inode takes in memory until the image is written, measured: itself, its name's place in a map, its own map, its layout. */
const inodeBytes = 600;

/** Bytes of one name: NAME_MAX of Linux, EROFS_NAME_LEN of the format. */
const maxNameBytes = 255;

/** Children are kept under latin1 names: one character is one byte, and their order is the order of bytes. */
export class FileTree {
  readonly root: Directory = impliedDirectory();
  private pending = 0;
  private inodes = 1;
  private metadataBytes = 0;

  constructor(private readonly limits: TreeLimits = treeLimits) {}

  /** Counts memory that something at `path` takes besides its inode. Throws ENVIRONMENT_INVALID beyond maxMetadataBytes. */
  charge(path: Buffer, bytes: number): void {
    this.metadataBytes += bytes;
    if (this.metadataBytes > this.limits.maxMetadataBytes) throw this.over("maxMetadataBytes", path);
  }

  /**
   * Puts `inode` at `path`. A directory that is already there keeps its children and takes the new attributes; everything else
   * that is there is replaced. Missing parents become directories of root's with mode 0755.
   * The way there may lead through symbolic links, which never lead out of the tree; what they name and is missing becomes a directory too.
   * Throws ENVIRONMENT_INVALID for `..`, for a path that leads through a file, for names that are too long, and over a limit.
   */
  put(path: Buffer, inode: Inode): void {
    this.charge(path, path.length); // all of it, since a name that is kept may be a part of the whole string
    const parts = splitPath(path);
    if (parts.length > this.limits.maxDepth) throw this.over("maxDepth", path);
    const name = parts.pop();
    if (name === undefined) {
      if (inode.shape.type !== "directory") throw invalid(`${showPath(path)} is the root, and no directory`);
      this.root.attributes = inode.attributes;
      return;
    }
    const { children } = this.directory(this.resolve(parts, path), path).shape;
    const present = children.get(name);
    if (present?.shape.type === "directory" && inode.shape.type === "directory") {
      present.attributes = inode.attributes;
      return;
    }
    if (inode.shape.type === "pending") this.pending++;
    this.count(path);
    children.set(name, inode);
  }

  /** Makes the directory `path`, unless there is one. What else is in its way stays, and is reported as `put` does. */
  makeDirectory(path: Buffer): void {
    this.directory(this.resolve(splitPath(path), path), path);
  }

  /** Every inode, some of them more than once. */
  *inodesInIt(): Generator<Inode> {
    const directories: Directory[] = [this.root];
    for (const directory of directories) {
      yield directory;
      for (const child of directory.shape.children.values()) {
        if (child.shape.type === "directory") directories.push(child as Directory);
        else yield child;
      }
    }
  }

  /** Gives what is at `target` another name. A target that is not there (yet) is looked for again by `resolveLinks`; if it never comes, `otherwise` is it. */
  link(path: Buffer, target: Buffer, otherwise?: Inode): void {
    const found = this.find(target);
    if (found === undefined) {
      this.put(path, { attributes: impliedAttributes, shape: { type: "pending", target: ownCopy(target), otherwise } });
      this.charge(path, target.length);
      return;
    }
    if (found.shape.type === "directory") throw invalid(`${showPath(path)} is a hard link to ${showPath(target)}, which is a directory`);
    if (found === this.find(path)) return;
    this.put(path, found);
  }

  /** Takes away what is at `path`, with all below it. False if nothing is there. */
  remove(path: Buffer): boolean {
    const parts = splitPath(path);
    const name = parts.pop();
    if (name === undefined) return false;
    const parent = this.walk(this.resolve(parts, path));
    return parent?.shape.type === "directory" && parent.shape.children.delete(name);
  }

  /** Takes away all that is in the directory `path`, which stays. A symbolic link to a directory will do; nothing happens where there is none. */
  clear(path: Buffer): void {
    const directory = this.walk(this.resolve(splitPath(path), path));
    if (directory?.shape.type === "directory") directory.shape.children.clear();
  }

  /** What is at `path`; symbolic links on the way are followed, the last one is not. */
  find(path: Buffer): Inode | undefined {
    const parts = splitPath(path);
    const name = parts.pop();
    return name === undefined ? this.root : this.walk([...this.resolve(parts, path), name]);
  }

  /** Resolves the hard links that came before their targets. Throws ENVIRONMENT_INVALID for those that have none. */
  resolveLinks(): void {
    if (this.pending === 0) return;
    const directories: Directory[] = [this.root];
    for (const { shape } of directories) {
      for (const [name, child] of shape.children) {
        if (child.shape.type === "pending") shape.children.set(name, this.resolveLink(child, name));
        else if (child.shape.type === "directory") directories.push(child as Directory);
      }
    }
    this.pending = 0;
  }

  private resolveLink(link: Inode, name: string): Inode {
    const seen: Inode[] = [];
    let found: Inode | undefined = link;
    while (found?.shape.type === "pending") {
      if (seen.includes(found) || seen.length === maxLinkChain) throw invalid(`the hard link ${showName(name)} leads to itself`);
      seen.push(found);
      const { target, otherwise }: { target: Buffer; otherwise?: Inode | undefined } = found.shape;
      found = this.find(target) ?? otherwise;
      if (found === undefined) throw invalid(`the hard link ${showName(name)} has no target: there is no ${showPath(target)}`);
    }
    if (found!.shape.type === "directory") throw invalid(`${showName(name)} is a hard link to a directory`);
    return found!;
  }

  /** A new name; of a hard link there is no new inode, but nothing is lost by counting it as one. */
  private count(path: Buffer): void {
    if (++this.inodes > this.limits.maxInodes) throw this.over("maxInodes", path);
    this.charge(path, inodeBytes);
  }

  private over(limit: keyof TreeLimits, path: Buffer): PyroError {
    return invalid(`${showPath(path)} is over the limit ${limit} (${this.limits[limit]})`);
  }

  /**
   * Where `parts` lead when symbolic links are followed, as a path without any. Like a guest whose root this is would go: `/` is our root, and
   * `..` of it is it again. What is not there is taken to be a directory.
   */
  private resolve(parts: readonly string[], path: Buffer): string[] {
    let way: Inode[] = []; // of `resolved`, as far as it is there
    let resolved: string[] = [];
    let left: readonly string[] = parts;
    for (let at = 0, links = 0; at < left.length; at++) {
      const part = left[at]!;
      if (part === "..") {
        resolved.pop();
        way.length = Math.min(way.length, resolved.length);
        continue;
      }
      const { shape } = way.length === 0 ? this.root : way.at(-1)!;
      const child = way.length === resolved.length && shape.type === "directory" ? shape.children.get(part) : undefined;
      if (child?.shape.type !== "symlink") {
        resolved.push(part);
        if (child !== undefined) way.push(child);
        continue;
      }
      if (++links > maxLinks) throw invalid(`${showPath(path)} leads through more than ${maxLinks} symbolic links (maxLinks)`);
      const target = child.shape.target.toString("latin1");
      if (target.startsWith("/")) [way, resolved] = [[], []];
      left = [...target.split("/").filter((each) => each !== "" && each !== "."), ...left.slice(at + 1)];
      at = -1;
      if (left.some((each) => each.length > maxNameBytes)) throw invalid(`${showPath(path)} leads through a symbolic link to a name of more than ${maxNameBytes} bytes (maxNameBytes)`);
      if (resolved.length + left.length > this.limits.maxDepth) throw this.over("maxDepth", path);
    }
    return resolved;
  }

  private directory(parts: string[], path: Buffer): Directory {
    let directory: Directory = this.root;
    for (const part of parts) {
      let child = directory.shape.children.get(part);
      if (child === undefined) {
        this.count(path);
        child = impliedDirectory();
        directory.shape.children.set(part, child);
      }
      if (child.shape.type !== "directory") throw invalid(`${showPath(path)} lies below ${showName(part)}, which is a ${child.shape.type}, not a directory`);
      directory = child as Directory;
    }
    return directory;
  }

  private walk(parts: string[]): Inode | undefined {
    let inode: Inode = this.root;
    for (const part of parts) {
      if (inode.shape.type !== "directory") return undefined;
      const child = inode.shape.children.get(part);
      if (child === undefined) return undefined;
      inode = child;
    }
    return inode;
  }
}

/** Hard links to hard links that have not come yet. */
const maxLinkChain = 40;
/** Symbolic links on the way to one name, as in Linux (MAXSYMLINKS). */
const maxLinks = 40;

const impliedAttributes: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 }, xattrs: new Map() };

function impliedDirectory(): Directory {
  return { attributes: impliedAttributes, shape: { type: "directory", children: new Map() } };
}

/** The names of a path as latin1, from the root down: `/`, `./` and empty parts mean nothing, `..` is refused. */
export function splitPath(path: Buffer): string[] {
  const parts: string[] = [];
  for (const part of path.toString("latin1").split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") throw invalid(`${showPath(path)} has ".." in it`);
    if (part.length > maxNameBytes) throw invalid(`${showPath(path)} has a name of ${part.length} bytes; ${maxNameBytes} is the most (maxNameBytes)`);
    parts.push(part);
  }
  return parts;
}

function invalid(what: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `The archive can't become a root file system: ${what}.`);
}

/** Bytes that can be kept without keeping the larger buffer that they are a part of. */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.alloc(bytes.length); // not out of Node's pool: a few bytes would keep 8 KiB of it
  copy.set(bytes);
  return copy;
}

function showName(name: string): string {
  return showPath(Buffer.from(name, "latin1"));
}
