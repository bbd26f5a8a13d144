/** A saved image in one tar file, also as it comes in: each file of it is kept apart until it is known which are needed. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { join, posix } from "node:path";
import { PyroError, toPyroError } from "../../base/error.js";
import { readRegular } from "../../base/regular-file.js";
import { imageLimits } from "../images/documents.js";
import { layerLimits, uncompressed, withHead } from "../images/layer-tar.js";
import { readTar } from "../tar.js";
import type { FileSet } from "./files.js";

export const archiveLimits = { maxArchiveFiles: 10_000, maxArchiveBytes: imageLimits.maxImageBytes } as const;

interface Kept {
  path: string;
  sizeBytes: number;
  digest: string;
}

/** Reads the whole archive, also one that is compressed with gzip or zstd; its files go into `directory` under names of ours. Throws ENVIRONMENT_INVALID, DISK_FULL, CANCELLED. */
export async function openImageArchive(source: AsyncIterable<Uint8Array>, shown: string, directory: string, options: { signal: AbortSignal | undefined; onBytes(bytes: number): void }): Promise<FileSet> {
  const files = new Map<string, Kept>();
  const links = new Map<string, string>();
  let total = 0;
  let count = 0; // a name may come twice, and the last one is it
  const limits = { maxEntries: archiveLimits.maxArchiveFiles, maxArchiveBytes: archiveLimits.maxArchiveBytes, maxFileBytes: imageLimits.maxLayerBytes };
  for await (const entry of readTar(plain(source, shown), { limits, ...(options.signal && { signal: options.signal }) })) {
    const name = normal(entry.path.toString("latin1"));
    // docker save writes a layer that several images share once, and links to it.
    if (entry.type === "symlink") links.set(name, normal(posix.join(posix.dirname(name), entry.linkTarget!.toString("latin1"))));
    else if (entry.type === "hardlink") links.set(name, normal(entry.linkTarget!.toString("latin1")));
    else if (entry.type === "file" && entry.sparse === undefined) {
      const path = join(directory, `${count++}`);
      const kept = await keep(entry.content(), path, (bytes) => options.onBytes(total + bytes));
      total += kept.sizeBytes;
      files.set(name, kept);
    }
  }
  const find = (name: string): Kept | undefined => {
    let at = normal(name);
    for (let followed = 0; followed < 10 && !files.has(at) && links.has(at); followed++) at = links.get(at)!;
    return files.get(at);
  };
  return {
    shown,
    async read(name, maxBytes) {
      const file = find(name);
      if (file === undefined) return undefined;
      if (file.sizeBytes > maxBytes) throw new PyroError("ENVIRONMENT_INVALID", `${name} of ${shown} has ${file.sizeBytes} bytes; at most ${maxBytes} are allowed.`);
      return readRegular(file.path, maxBytes);
    },
    async open(name, offset) {
      const file = find(name);
      return file === undefined ? undefined : createReadStream(file.path, { start: offset, highWaterMark: 1 << 19 });
    },
    measure: async (name) => find(name),
    close: async () => {},
  };
}

/** What is compressed may become so many times as much as a layer may. */
async function* plain(source: AsyncIterable<Uint8Array>, shown: string): AsyncGenerator<Uint8Array> {
  const { head, whole } = await withHead(source, 6);
  const program = unreadable.find(([magic]) => head.subarray(0, magic.length).equals(magic))?.[1];
  if (program !== undefined) {
    for await (const _ of whole) break; // a generator that has not begun closes nothing
    throw new PyroError("UNSUPPORTED", `${shown} is compressed with ${program}; read are gzip, zstd and what is not compressed.`, { hint: `${program} -dc ARCHIVE | pyro env pull NAME --source -` });
  }
  const { maxExpansionRatio, freeBytes } = layerLimits;
  let [stored, bytes] = [0, 0];
  const counted = async function* () {
    for await (const chunk of whole) {
      stored += chunk.length;
      yield chunk;
    }
  };
  try {
    for await (const chunk of uncompressed(counted())) {
      bytes += chunk.length;
      if (bytes > freeBytes + maxExpansionRatio * stored) throw new PyroError("ENVIRONMENT_INVALID", `Its first ${stored} bytes become ${bytes}, over the limit maxExpansionRatio (${maxExpansionRatio}).`);
      yield chunk;
    }
  } catch (error) {
    if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
    throw new PyroError(error.code, `${shown}: ${error.message}`, { ...(error.hint !== undefined && { hint: error.hint }), cause: error });
  }
}

const unreadable: readonly [Buffer, string][] = [[Buffer.from("\xfd7zXZ\0", "latin1"), "xz"], [Buffer.from("BZh"), "bzip2"]];

async function keep(content: AsyncIterable<Uint8Array>, path: string, onBytes: (bytes: number) => void): Promise<Kept> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  const file = await open(path, "wx", 0o600);
  try {
    for await (const part of content) {
      hash.update(part);
      sizeBytes += part.length;
      await file.appendFile(part);
      onBytes(sizeBytes);
    }
  } catch (error) {
    throw toPyroError(error);
  } finally {
    await file.close();
  }
  return { path, sizeBytes, digest: `sha256:${hash.digest("hex")}` };
}

/** A key, and never a path of this file system. */
function normal(name: string): string {
  return name.split("/").filter((part) => part !== "" && part !== ".").join("/");
}
