/** A client's configuration as a file: somebody else's, who may have made it a link, closed it to others, or be writing to it. */
import { lstat, realpath, rm, rmdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { writeAtomic } from "../../base/atomic.js";
import { makeDirectory } from "../../base/directory.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { readRegular } from "../../base/regular-file.js";

/** Claude Code keeps more than its servers in its file. */
const maxBytes = 64 << 20;

/** The file's text; undefined where there is none. Throws DENIED, and UNSUPPORTED for what is no text. */
export async function readConfig(file: string): Promise<string | undefined> {
  try {
    const target = await resolved(file);
    if (target === undefined) return undefined;
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await readRegular(target, maxBytes));
  } catch (error) {
    if (error instanceof TypeError) throw new PyroError("UNSUPPORTED", `${file} is not UTF-8 text; it was left as it is.`, { cause: error });
    throw refusal(file, error);
  }
}

/**
 * Puts `text` in place of what is there, `before` (undefined: nothing). A link stays a link, and mode and owner stay what they are. Returns the directories
 * that were made for it. Throws DENIED where the file is read-only, and INVALID_STATE if somebody changed it meanwhile.
 */
export async function writeConfig(file: string, before: string | undefined, text: string, mode: number): Promise<string[]> {
  await checkUnchanged(file, before);
  const missing: string[] = [];
  for (let at = dirname(file); !(await isThere(at)); at = dirname(at)) missing.push(at);
  try {
    await makeDirectory(dirname(file));
    const target = (await resolved(file)) ?? file;
    const like = before === undefined ? undefined : await stat(target);
    if (like !== undefined && (like.mode & 0o222) === 0) throw readOnly(file);
    await writeAtomic(target, text, mode, like);
    return missing;
  } catch (error) {
    for (const each of missing) await rmdir(each).catch(() => {});
    throw refusal(file, error);
  }
}

/** Removes the file, and directories that were made for it if nothing else is in them. Throws as `writeConfig`. */
export async function removeConfig(file: string, before: string, directories: readonly string[]): Promise<void> {
  await checkUnchanged(file, before);
  try {
    if (((await stat(file)).mode & 0o222) === 0) throw readOnly(file);
    await rm(file);
  } catch (error) {
    throw refusal(file, error);
  }
  for (const each of directories) await rmdir(each).catch(() => {}); // somebody else's are in it
}

async function checkUnchanged(file: string, before: string | undefined): Promise<void> {
  if ((await readConfig(file)) !== before) throw new PyroError("INVALID_STATE", `${file} was changed by somebody else meanwhile; it was left as it is.`, { hint: "Run the same command again." });
}

/** Where a link leads. Undefined if nothing is there; throws for a link to nothing. */
async function resolved(file: string): Promise<string | undefined> {
  try {
    return await realpath(file);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    if (!(await isThere(file))) return undefined;
    throw new PyroError("DENIED", `${file} is a link to something that is not there.`, { cause: error, hint: "Make what it leads to, or remove the link." });
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (systemCode(error) === "ENOENT") return false;
    throw error;
  }
}

function readOnly(file: string): PyroError {
  return new PyroError("DENIED", `${file} is read-only, so it was left as it is.`, { hint: "Whoever made it so may have its content from somewhere else: add there what `pyro mcp print-config` prints." });
}

/** The hints of others speak of pyro's own files. */
function refusal(file: string, error: unknown): PyroError {
  const { code, message, hint } = toPyroError(error);
  if (message.startsWith(file) && hint !== undefined) return error as PyroError;
  return new PyroError(code === "ENVIRONMENT_INVALID" || code === "INTERNAL" ? "DENIED" : code, `${file} can't be used: ${message}`, { cause: error, hint: "Nothing was changed. `pyro mcp print-config` prints what to add by hand." });
}
