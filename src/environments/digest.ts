/** SHA-256 of files, and what a file's identity is so that it need not be hashed again. */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { checkSignal } from "../base/deadline.js";
import { openRegular } from "../base/regular-file.js";
import type { Fields } from "./record.js";

export const digestPattern = /^sha256:[0-9a-f]{64}$/;

/** A file's size, and its digest as `sha256:` and 64 hexadecimal digits. */
export interface FileDigest {
  sizeBytes: number;
  digest: string;
}

/** What stat(2) says about a file; while it stays the same the file has the same content. Whole numbers as text. */
export interface FileStamp {
  inode: string;
  size: string;
  mtimeNs: string;
  ctimeNs: string;
}

export function digestOf(data: string | Uint8Array): string {
  return `sha256:${createHash("sha256").update(data).digest("hex")}`;
}

/** Reads the whole of a regular file. Throws what open(2) throws, and ENVIRONMENT_INVALID for what is no regular file. */
export async function hashFile(path: string, signal?: AbortSignal): Promise<FileDigest & { stamp: FileStamp }> {
  const file = await openRegular(path);
  try {
    const before = await stampOf(file);
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(1 << 20);
    let sizeBytes = 0;
    for (;;) {
      checkSignal(signal);
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead === 0) break;
      sizeBytes += bytesRead;
      hash.update(buffer.subarray(0, bytesRead));
    }
    return { sizeBytes, digest: `sha256:${hash.digest("hex")}`, stamp: before };
  } finally {
    await file.close();
  }
}

/** The stamp of the regular file `path`. */
export async function stampFile(path: string): Promise<FileStamp> {
  const file = await openRegular(path);
  try {
    return await stampOf(file);
  } finally {
    await file.close();
  }
}

export function sameStamp(a: FileStamp, b: FileStamp): boolean {
  return a.inode === b.inode && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

/** A stamp as JSON has it, and back. `parseStamp` throws ENVIRONMENT_INVALID. */
export function stampRecord(stamp: FileStamp): Record<string, string> {
  return { inode: stamp.inode, size: stamp.size, mtime_ns: stamp.mtimeNs, ctime_ns: stamp.ctimeNs };
}

export function parseStamp(fields: Fields): FileStamp {
  const whole = (field: string) => fields.text(field, 40, /^\d+$/);
  return { inode: whole("inode"), size: whole("size"), mtimeNs: whole("mtime_ns"), ctimeNs: whole("ctime_ns") };
}

async function stampOf(file: FileHandle): Promise<FileStamp> {
  const stat = await file.stat({ bigint: true });
  return { inode: `${stat.ino}`, size: `${stat.size}`, mtimeNs: `${stat.mtimeNs}`, ctimeNs: `${stat.ctimeNs}` };
}
