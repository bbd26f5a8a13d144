/** Files that are either wholly there or not there at all, also after a crash. */
import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** Writes `data` to a new file beside `path`, makes it durable, and renames it over `path`. `mode` as in open(2); with `like`, mode and owner are exactly those. */
export async function writeAtomic(path: string, data: string | Uint8Array, mode = 0o644, like?: { mode: number; uid: number; gid: number }): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx", mode);
    try {
      await file.writeFile(data);
      if (like !== undefined) {
        await file.chown(like.uid, like.gid);
        await file.chmod(like.mode & 0o7777);
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** Makes renames and new names in `directory` durable. */
export async function syncDirectory(directory: string): Promise<void> {
  await syncFile(directory);
}

/** Makes the content of the file `path` durable. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
