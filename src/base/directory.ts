/** Making directories. Node's own recursive mkdir never ends where mkdir(2) says ENOENT though the parent is there, as in /proc. */
import { mkdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { PyroError, directoriesHint, systemCode, toPyroError } from "./error.js";

/** Makes `path` and what is missing above it, for this user alone (0700). What is there stays as it is. Throws DENIED, DISK_FULL. */
export async function makeDirectory(path: string): Promise<string> {
  try {
    const missing: string[] = [];
    // Each step is one component shorter, and "/" is always there.
    for (let at = resolve(path); !(await isDirectory(at)); at = dirname(at)) missing.push(at);
    for (const each of missing.toReversed()) await mkdir(each, { mode: 0o700 }).catch(ignoreThere);
    if (missing.length > 0 && !(await isDirectory(path))) throw new Error("something else is in its place");
    return path;
  } catch (error) {
    const { code, message } = toPyroError(error);
    if (code === "DISK_FULL") throw toPyroError(error);
    throw new PyroError("DENIED", `The directory ${path} can't be made: ${message}`, { hint: directoriesHint, cause: error });
  }
}

/** False if nothing is there, or a link to nothing. Throws if it is something else, or can't be looked at. */
async function isDirectory(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true;
  } catch (error) {
    if (systemCode(error) === "ENOENT") return false;
    throw error;
  }
  throw new Error(`${path} is not a directory`);
}

function ignoreThere(error: unknown): void {
  if (systemCode(error) !== "EEXIST") throw error; // another process was faster
}
