/** A tree of the host's files as the entries that go into a guest. No link is followed; what it can't be made of is left out and counted. */
import { Buffer } from "node:buffer";
import { constants, type BigIntStats } from "node:fs";
import { lstat, open, opendir, readlink } from "node:fs/promises";
import { checkSignal } from "../../base/deadline.js";
import { PyroError, systemCode } from "../../base/error.js";
import { MAX_TREE_DEPTH, type TreeEntry } from "../../channel/index.js";
import type { CopyCounter } from "./progress.js";

const readBytes = 256 << 10;

/** Depth first, names sorted by their bytes. Throws NOT_FOUND, DENIED, INVALID_ARGUMENT, CANCELLED. */
export async function* readHostTree(root: string, counter: CopyCounter, signal?: AbortSignal): AsyncIterable<TreeEntry> {
  /** Files with several names, by device and inode: the first path that each was seen under. */
  const seen = new Map<string, Buffer>();
  yield* read(Buffer.from(root), Buffer.alloc(0), 0);

  async function* read(place: Buffer, path: Buffer, depth: number): AsyncIterable<TreeEntry> {
    checkSignal(signal);
    if (depth > MAX_TREE_DEPTH) throw new PyroError("INVALID_ARGUMENT", `${place.toString()} is over ${MAX_TREE_DEPTH} directories deep.`);
    const stat = await lstat(place, { bigint: true }).catch((error: unknown) => {
      if (depth > 0 && systemCode(error) === "ENOENT") return undefined; // gone before its turn
      throw unreadable(place, error);
    });
    if (stat === undefined) return;
    const common = { path, mode: Number(stat.mode & 0o7777n), uid: Number(stat.uid), gid: Number(stat.gid), mtimeNs: stat.mtimeNs, sizeBytes: stat.size };
    if (stat.isDirectory()) {
      counter.entry(path);
      yield { ...common, type: "directory" };
      for (const name of await namesOf(place)) yield* read(joined(place, name), path.length === 0 ? name : joined(path, name), depth + 1);
    } else if (stat.isSymbolicLink()) {
      counter.entry(path);
      yield { ...common, type: "link", target: await readlink(place, { encoding: "buffer" }).catch((error: unknown) => Promise.reject(unreadable(place, error))) };
    } else if (stat.isFIFO()) {
      counter.entry(path);
      yield { ...common, type: "fifo" };
    } else if (stat.isFile()) {
      counter.entry(path);
      const id = `${stat.dev}:${stat.ino}`;
      const first = stat.nlink > 1n ? seen.get(id) : undefined;
      if (first !== undefined) {
        yield { ...common, type: "file", hardLinkTo: first };
        return;
      }
      if (stat.nlink > 1n) seen.set(id, path);
      yield { ...common, type: "file", content: contentOf(place, stat) };
    } else {
      counter.skip();
    }
  }

  async function* contentOf(place: Buffer, stat: BigIntStats): AsyncIterable<Buffer> {
    // What was a file a moment ago may be a link or a FIFO by now.
    const file = await open(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((error: unknown) => {
      throw unreadable(place, error);
    });
    try {
      const now = await file.stat({ bigint: true });
      if (now.dev !== stat.dev || now.ino !== stat.ino) throw new PyroError("INVALID_STATE", `${place.toString()} was replaced while it was copied.`, { hint: "Copy it again." });
      for (let left = Number(stat.size); left > 0; ) {
        checkSignal(signal);
        const buffer = Buffer.allocUnsafe(Math.min(readBytes, left));
        const { bytesRead } = await file.read(buffer, 0, buffer.length, null).catch((error: unknown) => Promise.reject(unreadable(place, error)));
        // Its beginning alone would be taken for all of it.
        if (bytesRead === 0) throw new PyroError("INVALID_STATE", `${place.toString()} was cut off while it was copied.`, { hint: "Copy it again." });
        left -= bytesRead;
        counter.bytes(bytesRead);
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }
}

async function namesOf(place: Buffer): Promise<Buffer[]> {
  const names: Buffer[] = [];
  try {
    // Bytes as they are: a name need not be UTF-8. Node's types know only text here.
    const directory = await opendir(place as unknown as string, { encoding: "buffer" as BufferEncoding });
    for await (const entry of directory) names.push(Buffer.from(entry.name as unknown as Buffer));
  } catch (error) {
    throw unreadable(place, error);
  }
  return names.sort(Buffer.compare);
}

function joined(directory: Buffer, name: Buffer): Buffer {
  return Buffer.concat([directory, Buffer.from("/"), name]);
}

function unreadable(place: Buffer, error: unknown): PyroError {
  const code = systemCode(error);
  const path = place.toString();
  if (code === "ENOENT" || code === "ENOTDIR") return new PyroError("NOT_FOUND", `${path} is not there.`, { cause: error });
  return new PyroError(code === "EACCES" || code === "EPERM" ? "DENIED" : "INVALID_STATE", `${path} can't be read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}
