/** Where kernels come from as things are set now: Debian's package, or a directory of the user's in a certain state. */
import { readdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PyroError, systemCode } from "../base/error.js";
import { settings } from "../base/settings.js";
import { digestOf } from "./digest.js";

/** Whether `source` is where kernels come from as things are set now, and is as it was. */
export async function isWantedKernelSource(source: string): Promise<boolean> {
  const directory = settings.kernelDirectory();
  return directory === undefined ? !source.startsWith("directory:") : source === (await directorySource(directory));
}

/** A kernel directory's path and state: another state when a file in it is another one. */
export async function directorySource(path: string): Promise<string> {
  return stateOf(path).catch((error: unknown) => {
    throw directoryError(path, error);
  });
}

/** What went wrong with the user's kernel directory, with what it should be. */
export function directoryError(path: string, error: unknown): unknown {
  const hint = "PYRO_KERNEL_DIR names a directory with vmlinux (or vmlinuz) and modules/ with *.ko files.";
  if (error instanceof PyroError) return error.code === "ENVIRONMENT_INVALID" && error.hint === undefined ? new PyroError(error.code, error.message, { hint, cause: error }) : error;
  const directory = resolve(path);
  const file = error instanceof Error && "path" in error && typeof error.path === "string" ? resolve(error.path) : "";
  if (file !== directory && !file.startsWith(`${directory}/`)) return error; // the cache's disk is full, say
  return new PyroError("ENVIRONMENT_INVALID", `The kernel directory ${path} can't be read: ${systemCode(error) ?? "no reason was given"}${file === directory ? "" : ` at ${file}`}.`, { hint, cause: error });
}

async function stateOf(path: string): Promise<string> {
  const present = await readdir(path);
  const modules = present.includes("modules") ? (await readdir(join(path, "modules"))).map((each) => join("modules", each)) : [];
  if (modules.length > 4096) throw new PyroError("ENVIRONMENT_INVALID", `There are ${modules.length} files in ${path}/modules; at most 4096 are allowed.`);
  const files = [...present.filter((each) => each === "vmlinux" || each === "vmlinuz"), ...modules].sort();
  const stats = await Promise.all(files.map(async (each) => ({ each, ...(await stat(join(path, each), { bigint: true })) })));
  return `directory:${path}#${digestOf(stats.map(({ each, ino, size, mtimeNs }) => `${each} ${ino} ${size} ${mtimeNs}\n`).join("")).slice(7, 23)}`;
}
