/** Opening files that may be anything by now: a FIFO's open(2) would wait for a writer, in a thread that nothing can interrupt. */
import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { PyroError, systemCode } from "./error.js";

export interface RegularOptions {
  /** A larger file is refused. */
  maxBytes?: number;
}

/** Opens a regular file for reading. Throws ENVIRONMENT_INVALID for anything else and for one that is too large; else what open(2) throws. */
export async function openRegular(path: string, options: RegularOptions = {}): Promise<FileHandle> {
  return (await openSized(path, options)).file;
}

/** The whole of a regular file, as large as it was when it was opened. Throws as `openRegular`. */
export async function readRegular(path: string, maxBytes: number): Promise<Buffer> {
  const { file, sizeBytes } = await openSized(path, { maxBytes });
  try {
    const buffer = Buffer.alloc(sizeBytes);
    let total = 0;
    while (total < sizeBytes) {
      const { bytesRead } = await file.read(buffer, total, sizeBytes - total, total);
      if (bytesRead === 0) break; // it was cut short meanwhile
      total += bytesRead;
    }
    return buffer.subarray(0, total);
  } finally {
    await file.close();
  }
}

async function openSized(path: string, { maxBytes }: RegularOptions): Promise<{ file: FileHandle; sizeBytes: number }> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY); // Node adds O_CLOEXEC
  } catch (error) {
    if (systemCode(error) === "ENXIO") throw notRegular(path, error); // a socket, or a device that isn't there
    throw error;
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw notRegular(path);
    if (maxBytes !== undefined && stat.size > maxBytes) throw new PyroError("ENVIRONMENT_INVALID", `${path} has ${stat.size} bytes; at most ${maxBytes} are allowed.`);
    return { file, sizeBytes: stat.size };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function notRegular(path: string, cause?: unknown): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `${path} is not a regular file.`, { cause });
}
