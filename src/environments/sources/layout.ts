/** An OCI layout directory. Its files are the user's, what is in them is not trusted. */
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { systemCode } from "../../base/error.js";
import { openRegular, readRegular } from "../../base/regular-file.js";
import { hashFile } from "../digest.js";
import type { FileSet } from "./files.js";

/** Names come from the documents' digests alone, or are these files' own: none leads out of the directory. */
export function openLayoutDirectory(path: string): FileSet {
  const inside = (name: string) => (/^(?:[a-z0-9.-]{1,64}|blobs\/sha256\/[0-9a-f]{64})$/.test(name) && name !== ".." ? join(path, name) : undefined);
  return {
    shown: path,
    async read(name, maxBytes) {
      const file = inside(name);
      return file === undefined ? undefined : orMissing(readRegular(file, maxBytes));
    },
    async open(name, offset) {
      const file = inside(name);
      const handle = file === undefined ? undefined : await orMissing(openRegular(file));
      return handle === undefined ? undefined : createReadStream("", { fd: handle, start: offset, highWaterMark: 1 << 19 });
    },
    async measure(name) {
      const file = inside(name);
      return file === undefined ? undefined : orMissing(hashFile(file));
    },
    close: async () => {},
  };
}

async function orMissing<T>(work: Promise<T>): Promise<T | undefined> {
  return work.catch((error: unknown) => {
    if (systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR") return undefined;
    throw error;
  });
}
