/** Where kernels come from as things are set now: Debian's package, or a directory of the user's in a certain state. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { PyroError } from "../base/error.js";
import { settings } from "../base/settings.js";
import { digestOf } from "./digest.js";

/** Whether `source` is where kernels come from as things are set now, and is as it was. */
export async function isWantedKernelSource(source: string): Promise<boolean> {
  const directory = settings.kernelDirectory();
  return directory === undefined ? !source.startsWith("directory:") : source === (await directorySource(directory));
}

/** A kernel directory's path and state: another state when a file in it is another one. */
export async function directorySource(path: string): Promise<string> {
  const present = await readdir(path).catch((cause: unknown) => {
    throw new PyroError("ENVIRONMENT_INVALID", `The kernel directory ${path} can't be read.`, { hint: directoryHint, cause });
  });
  const modules = present.includes("modules") ? (await readdir(join(path, "modules"))).map((each) => join("modules", each)) : [];
  if (modules.length > 4096) throw new PyroError("ENVIRONMENT_INVALID", `There are ${modules.length} files in ${path}/modules; at most 4096 are allowed.`);
  const files = [...present.filter((each) => each === "vmlinux" || each === "vmlinuz"), ...modules].sort();
  const stats = await Promise.all(files.map(async (each) => ({ each, ...(await stat(join(path, each), { bigint: true })) })));
  return `directory:${path}#${digestOf(stats.map(({ each, ino, size, mtimeNs }) => `${each} ${ino} ${size} ${mtimeNs}\n`).join("")).slice(7, 23)}`;
}

export const directoryHint = "PYRO_KERNEL_DIR names a directory with vmlinux (or vmlinuz) and modules/ with *.ko files.";
