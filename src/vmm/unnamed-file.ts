/** Files without a name: they are gone when the last process that has them open is gone, however it went. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { makeDirectory } from "../base/directory.js";
import { systemCode } from "../base/error.js";

/** open(2)'s O_TMPFILE on Linux; Node has no name for it. It contains O_DIRECTORY. */
const O_TMPFILE = 0o20200000;

/** Opens a new file for reading and writing on the file system of `directory` (made if it is not there). */
export async function openUnnamed(directory: string): Promise<FileHandle> {
  await makeDirectory(directory);
  try {
    return await open(directory, O_TMPFILE | constants.O_RDWR, 0o600);
  } catch (error) {
    // EOPNOTSUPP: this file system can't; EISDIR: this kernel can't.
    if (!["EOPNOTSUPP", "ENOTSUP", "EISDIR"].includes(systemCode(error) ?? "")) throw error;
    return await openAndUnlink(directory);
  }
}

/** For file systems that have no O_TMPFILE: the name lives for a moment. */
export async function openAndUnlink(directory: string): Promise<FileHandle> {
  const path = join(directory, `.scratch-${randomBytes(8).toString("hex")}.tmp`);
  const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  await rm(path);
  return file;
}
