/** Reading JSON that may have been damaged or written by somebody else: every field is checked, sizes are bounded. */
import { lstat } from "node:fs/promises";
import { PyroError, systemCode } from "../base/error.js";
import { readRegular } from "../base/regular-file.js";
import { isHarmlessLine } from "../base/harmless.js";

/** Parses one JSON object out of a file of at most `maxBytes`. `undefined`: there is no such file. Throws ENVIRONMENT_INVALID. */
export async function readRecord(path: string, maxBytes: number): Promise<Fields | undefined> {
  try {
    return parseRecord(await readRegular(path, maxBytes), path);
  } catch (error) {
    const code = systemCode(error);
    if (code === "ENOENT") return undefined;
    if (code === undefined || !filesOwnFault.has(code) || !(await isReachable(path))) throw error;
    throw new PyroError("ENVIRONMENT_INVALID", `${path} can't be read: ${code}.`, { cause: error });
  }
}

/** Errors that are the file's own fault where the file itself can be looked at, and else that of a directory above it. */
const filesOwnFault: ReadonlySet<string> = new Set(["EACCES", "EPERM", "ELOOP", "EIO"]);

async function isReachable(path: string): Promise<boolean> {
  return lstat(path).then(() => true, () => false);
}

/** One JSON object out of `data`; `what` names it in errors. */
export function parseRecord(data: Uint8Array, what: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch (error) {
    throw new PyroError("ENVIRONMENT_INVALID", `${what} is not JSON.`, { cause: error });
  }
  return new Fields(value, what);
}

/** The fields of an object that is not trusted. Each getter throws ENVIRONMENT_INVALID, naming the field, when it isn't what is asked for. */
export class Fields {
  private readonly value: Record<string, unknown>;
  private readonly what: string;

  constructor(value: unknown, what: string) {
    if (value === null || typeof value !== "object" || Array.isArray(value)) throw new PyroError("ENVIRONMENT_INVALID", `${what} is not a JSON object.`);
    this.value = value as Record<string, unknown>;
    this.what = what;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.value, name);
  }

  /** Whether it is there and not null, which some programs write for what is not there. */
  isSet(name: string): boolean {
    return this.get(name) !== undefined && this.get(name) !== null;
  }

  /** A string of at most `maxLength` characters, any but NUL. */
  string(name: string, maxLength: number): string {
    const value = this.get(name);
    if (!isString(value, maxLength)) throw this.wrong(name, `text of at most ${maxLength} characters`);
    return value;
  }

  /** A list of at most `maxCount` such strings; `limit` is what that is called, if it has a name. */
  strings(name: string, maxCount: number, maxLength: number, limit?: string): string[] {
    const value = this.get(name);
    if (!Array.isArray(value) || value.length > maxCount || !value.every((each) => isString(each, maxLength))) throw this.wrong(name, `a list of at most ${maxCount}${limit === undefined ? "" : ` (${limit})`} texts of at most ${maxLength} characters`);
    return value;
  }

  /** An object whose values are all such strings. */
  stringMap(name: string, maxCount: number, maxLength: number): Record<string, string> {
    const value = this.get(name);
    const pairs = value !== null && typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : undefined;
    if (pairs === undefined || pairs.length > maxCount || !pairs.every(([key, each]) => isString(key, maxLength) && isString(each, maxLength))) throw this.wrong(name, `at most ${maxCount} texts of at most ${maxLength} characters`);
    return Object.fromEntries(pairs) as Record<string, string>;
  }

  /** A string of 1 to `maxLength` characters that a terminal only prints, matching `pattern` if there is one. */
  text(name: string, maxLength: number, pattern?: RegExp): string {
    const value = this.get(name);
    if (typeof value !== "string" || value.length === 0 || value.length > maxLength || !isHarmlessLine(value)) throw this.wrong(name, `text of 1 to ${maxLength} characters`);
    if (pattern !== undefined && !pattern.test(value)) throw this.wrong(name, `text like ${pattern.source}`);
    return value;
  }

  /** A whole number from `min` to `max`. */
  integer(name: string, min: number, max: number): number {
    const value = this.get(name);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) throw this.wrong(name, `a whole number from ${min} to ${max}`);
    return value;
  }

  object(name: string): Fields {
    return new Fields(this.get(name), `${name} of ${this.what}`);
  }

  /** A list of at most `maxCount` objects; `limit` is what that is called, if it has a name. */
  list(name: string, maxCount: number, limit?: string): Fields[] {
    const value = this.get(name);
    if (!Array.isArray(value) || value.length > maxCount) throw this.wrong(name, `a list of at most ${maxCount}${limit === undefined ? "" : ` (${limit})`}`);
    return value.map((each, index) => new Fields(each, `${name}[${index}] of ${this.what}`));
  }

  private get(name: string): unknown {
    return Object.hasOwn(this.value, name) ? this.value[name] : undefined;
  }

  private wrong(name: string, expected: string): PyroError {
    return new PyroError("ENVIRONMENT_INVALID", `${name} of ${this.what} is not ${expected}.`);
  }
}

function isString(value: unknown, maxLength: number): value is string {
  return typeof value === "string" && value.length <= maxLength && !value.includes("\0");
}
