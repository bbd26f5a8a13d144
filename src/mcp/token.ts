/** The secret that clients over HTTP have to show. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomic } from "../base/atomic.js";
import { makeDirectory } from "../base/directory.js";
import { PyroError, toPyroError } from "../base/error.js";
import { stateDirectory } from "../base/paths.js";

/** New for each server. */
export function makeToken(): string {
  return randomBytes(32).toString("base64url");
}

/** Puts a token of our own into a file for this user alone; its path. By the server's address (`127.0.0.1:8765`): two may have one port, `127.0.0.1` and `[::1]`. */
export async function keepToken(token: string, address: string): Promise<string> {
  const path = join(await makeDirectory(stateDirectory()), `mcp-token.${address}`);
  await writeAtomic(path, `${token}\n`, 0o600);
  return path;
}

/** Called before the address is let go of: then the file may be the next server's. */
export async function forgetToken(path: string): Promise<void> {
  await rm(path, { force: true });
}

/** One that the user made. Throws INVALID_ARGUMENT for one that others can read, or that is too short to be a secret. */
export async function readToken(path: string): Promise<string> {
  const wrong = (why: string) => new PyroError("INVALID_ARGUMENT", `The token file ${path} ${why}.`, { hint: `head -c 32 /dev/urandom | base64 > ${path}; chmod 600 ${path}` });
  let text: string;
  try {
    const { mode, size } = await stat(path);
    if ((mode & 0o077) !== 0) throw wrong("can be read or changed by others");
    if (size > 4096) throw wrong("is over 4096 bytes long");
    text = (await readFile(path, "utf8")).trim();
  } catch (error) {
    if (error instanceof PyroError) throw error;
    throw wrong(`can't be read: ${toPyroError(error).message}`);
  }
  if (!/^[A-Za-z0-9._~+/=-]{16,}$/.test(text)) throw wrong("holds no token: 16 or more letters, digits, or any of . _ ~ + / = -");
  return text;
}

/** Whether an Authorization header (RFC 6750, section 2.1) shows `token`; takes the same time whatever is wrong. */
export function showsToken(header: string | undefined, token: string): boolean {
  const given = /^Bearer +([A-Za-z0-9._~+/=-]{1,4096}) *$/i.exec(header ?? "")?.[1] ?? "";
  return timingSafeEqual(digest(given), digest(token));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
