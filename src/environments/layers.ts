/**
 * The layers of an image as one disk image (OCI image specification, layer.md). Layers are read from the top down, so that what a
 * lower one has of a file that an upper one replaces or removes need not be written; what each says is kept, and applied from the
 * bottom up once all of it is known. So entries may come in any order, and what is left out decides nothing about the result: content
 * that turns out to be needed (a hard link to a removed file stays) is read a second time.
 */
import { PyroError } from "../base/error.js";
import { ErofsImage, type ErofsOptions, type ErofsResult } from "./erofs.js";
import { showPath } from "./show-path.js";
import { readTar, tarLimits, type TarEntry, type TarLimits } from "./tar.js";
import { splitPath, type FileTree, type Inode } from "./tree.js";

export interface Layer {
  /** For messages: `sha256:…` */
  name: string;
  /** Its tar stream, uncompressed and checked at its end. Asked for once, rarely twice. */
  open(): AsyncIterable<Uint8Array>;
}

export interface MergeOptions extends ErofsOptions {
  /** Directories that have to be there; root's, mode 0755, where no layer has them. */
  directories?: readonly string[];
  tarLimits?: Partial<TarLimits>;
}

export interface MergeResult extends ErofsResult {
  /** Layers of which something was needed after all. */
  readAgain: number;
}

/** Entries of all layers together. */
export const maxLayerEntries = 4_000_000;

/** What one layer says: what to take away of those below it, and what to put there, in its own order. */
interface Changes {
  whiteouts: { path: Buffer; opaque: boolean }[];
  entries: ({ path: Buffer; inode: Inode } | { path: Buffer; target: Buffer })[];
  /** Files whose content was left, by their number among the entries of the tar stream. */
  left: Map<number, Inode>;
}

/** Writes the image of `layers`, the lowest first, to `imagePath`. On any error the file is gone. Throws what `ErofsImage` and `readTar` throw. */
export async function mergeLayers(layers: readonly Layer[], imagePath: string, options: MergeOptions = {}): Promise<MergeResult> {
  const image = await ErofsImage.create(imagePath, options);
  try {
    const changes: Changes[] = [];
    const shadow = new Shadow();
    let entries = 0;
    for (const [index, layer] of [...layers.entries()].toReversed()) {
      const limits = { ...options.tarLimits, maxEntries: Math.min(options.tarLimits?.maxEntries ?? tarLimits.maxEntries, maxLayerEntries - entries) };
      changes[index] = await inLayer(layer, () => readLayer(layer, image, shadow, { ...options, tarLimits: limits, isLowest: index === 0 }, (count) => (entries += count)));
    }
    for (const [index, each] of changes.entries()) await inLayer(layers[index]!, async () => apply(each, image.tree));
    for (const directory of options.directories ?? []) image.tree.makeDirectory(Buffer.from(directory));
    const readAgain = await fillWhatIsNeeded(layers, changes, image, options);
    return { ...(await image.finish()), readAgain };
  } catch (error) {
    await image.discard();
    throw error;
  }
}

async function readLayer(layer: Layer, image: ErofsImage, shadow: Shadow, options: MergeOptions & { isLowest: boolean }, onEntries: (count: number) => void): Promise<Changes> {
  const changes: Changes = { whiteouts: [], entries: [], left: new Map() };
  let number = -1;
  for await (const entry of entriesOf(layer, options)) {
    number++;
    const parts = splitPath(entry.path);
    if (isAufsOwn(parts)) continue;
    image.tree.charge(entry.path, recordBytes + entry.path.length);
    const whiteout = parseWhiteout(parts, entry.path);
    if (whiteout !== undefined) {
      changes.whiteouts.push(whiteout);
      continue;
    }
    const name = parts.join("/");
    if (entry.type === "hardlink") {
      const target = entry.linkTarget!;
      changes.entries.push({ path: entry.path, target });
      if (!shadow.hides(name)) shadow.want(splitPath(target).join("/"));
      continue;
    }
    const leaveContent = entry.type === "file" && shadow.hides(name);
    const inode = await image.store(withoutOverlays(entry), { leaveContent });
    if (leaveContent && entry.size > 0) changes.left.set(number, inode);
    changes.entries.push({ path: entry.path, inode });
  }
  onEntries(number + 1);
  if (!options.isLowest) shadow.add(changes);
  return changes;
}

/** What a layer takes away is of those below it, and never of itself, wherever in it that is said. A link of it may lead there all the same: then what was there has a new name. */
function apply({ whiteouts, entries }: Changes, tree: FileTree): void {
  const before = whiteouts.length === 0 ? [] : entries.map((each) => ("inode" in each ? undefined : findBelow(tree, each.target)));
  for (const { path, opaque } of whiteouts) {
    if (opaque) tree.clear(path);
    else tree.remove(path);
  }
  for (const [at, each] of entries.entries()) {
    if ("inode" in each) tree.put(each.path, each.inode);
    else tree.link(each.path, each.target, before[at]);
  }
  tree.resolveLinks();
}

/** The way there may lead nowhere yet, or round in a circle, and be another one when it is gone. */
function findBelow(tree: FileTree, target: Buffer): Inode | undefined {
  try {
    return tree.find(target);
  } catch (error) {
    if (error instanceof PyroError) return undefined;
    throw error;
  }
}

/** Reads those layers again that have content which was left and which the finished tree has. Returns how many. */
async function fillWhatIsNeeded(layers: readonly Layer[], changes: readonly Changes[], image: ErofsImage, options: MergeOptions): Promise<number> {
  const needed = new Set<Inode>();
  for (const inode of image.tree.inodesInIt()) if (inode.shape.type === "file" && "left" in inode.shape.content) needed.add(inode);
  let readAgain = 0;
  for (const [index, { left }] of changes.entries()) {
    const wanted = new Map([...left].filter(([, inode]) => needed.has(inode)));
    if (wanted.size === 0) continue;
    readAgain++;
    let number = -1;
    for await (const entry of entriesOf(layers[index]!, options)) {
      const inode = wanted.get(++number);
      if (inode !== undefined) await image.fill(inode, entry);
    }
  }
  return readAgain;
}

function entriesOf(layer: Layer, { tarLimits: limits, signal }: MergeOptions): AsyncIterable<TarEntry> {
  // The layer's digest tells whether it was cut; some builders leave out the end's mark.
  return readTar(layer.open(), { endMayBeMissing: true, ...(limits && { limits }), ...(signal && { signal }) });
}

/** Says of what is wrong with an image in which layer it is. */
async function inLayer<T>(layer: Layer, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
    throw new PyroError(error.code, `Layer ${layer.name}: ${error.message}`, { ...(error.hint !== undefined && { hint: error.hint }), cause: error });
  }
}

const whiteoutPrefix = ".wh.";
const opaqueName = ".wh..wh..opq";
/** AUFS kept things of its own in layers; nobody reads them any more. */
const aufsPrefix = ".wh..wh.";

function isAufsOwn(parts: readonly string[]): boolean {
  return parts.some((part, index) => part.startsWith(aufsPrefix) && (part !== opaqueName || index !== parts.length - 1));
}

/** What an entry takes away. Throws ENVIRONMENT_INVALID for one that would take away what it is in, or more, and for a file below one. */
function parseWhiteout(parts: readonly string[], path: Buffer): { path: Buffer; opaque: boolean } | undefined {
  const last = parts.at(-1);
  if (parts.slice(0, -1).some((part) => part.startsWith(whiteoutPrefix))) throw new PyroError("ENVIRONMENT_INVALID", `${showPath(path)} lies below a whiteout.`);
  if (last === undefined || !last.startsWith(whiteoutPrefix)) return undefined;
  const opaque = last === opaqueName;
  const name = last.slice(whiteoutPrefix.length);
  if (name === "" || name === "." || name === "..") throw new PyroError("ENVIRONMENT_INVALID", `${showPath(path)} is a whiteout of no name.`);
  return { path: Buffer.from([...parts.slice(0, -1), ...(opaque ? [] : [name])].join("/"), "latin1"), opaque };
}

/** Overlay file systems mark whiteouts and moved directories by attributes of their own; an image has no say in those of the guest. */
function withoutOverlays(entry: TarEntry): TarEntry {
  if (entry.xattrs.size === 0) return entry;
  return { ...entry, xattrs: new Map([...entry.xattrs].filter(([name]) => !/^(trusted|user)\.overlay\./.test(name))) };
}

/** What a record of an entry takes in memory besides its path, until all layers are read. */
const recordBytes = 160;

/** Which files of lower layers nobody will see, by their names alone: a guess that is mostly right. */
class Shadow {
  /** A file of that name is hidden. */
  private readonly names = new Set<string>();
  /** All below that name is hidden. */
  private readonly trees = new Set<string>();
  /** Hard links of upper layers lead there. */
  private readonly wanted = new Set<string>();

  hides(name: string): boolean {
    if (this.wanted.has(name)) return false;
    if (this.names.has(name)) return true;
    if (this.trees.size === 0) return false;
    for (let slash = name.lastIndexOf("/"); slash !== -1; slash = name.lastIndexOf("/", slash - 1)) if (this.trees.has(name.slice(0, slash))) return true;
    return this.trees.has("");
  }

  want(name: string): void {
    this.wanted.add(name);
  }

  /** From here on with what `changes` hide of the layers below theirs. */
  add({ whiteouts, entries }: Changes): void {
    for (const { path, opaque } of whiteouts) {
      const name = splitPath(path).join("/");
      this.trees.add(name);
      if (!opaque) this.names.add(name);
    }
    for (const each of entries) {
      const name = splitPath(each.path).join("/");
      this.names.add(name);
      if (!("inode" in each) || each.inode.shape.type !== "directory") this.trees.add(name);
    }
  }
}
