/**
 * What an install did to a file, so that it can be undone to the byte: the one stretch of text that was replaced. Only that is kept, as the rest of the file may
 * hold what is secret. `$XDG_STATE_HOME/pyro-mcp/mcp-installs/`, a file each.
 */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomic } from "../../base/atomic.js";
import { makeDirectory } from "../../base/directory.js";
import { log } from "../../base/log.js";
import { stateDirectory } from "../../base/paths.js";
import { readRegular } from "../../base/regular-file.js";

export interface Undo {
  /** `inserted` stands where `removed` stood before. */
  removed: string;
  inserted: string;
  /** Of the whole text right after the install. */
  sha256: string;
  offset: number;
  /** There was no file. */
  created: boolean;
  /** That were made for it. */
  directories: readonly string[];
}

const maxBytes = 1 << 20;

/** What leads from `before` to `after`. */
export function undoOf(before: string | undefined, after: string, directories: readonly string[]): Undo {
  const old = before ?? "";
  let head = 0;
  while (head < old.length && head < after.length && old[head] === after[head]) head++;
  let tail = 0;
  while (tail < old.length - head && tail < after.length - head && old.at(-1 - tail) === after.at(-1 - tail)) tail++;
  return { removed: old.slice(head, old.length - tail), inserted: after.slice(head, after.length - tail), sha256: digest(after), offset: head, created: before === undefined, directories };
}

/** `text` as it would be without the install; undefined where that can't be told: the stretch was changed, or is there twice. */
export function undone(text: string, { inserted, removed, offset, sha256 }: Undo): string | undefined {
  const unchanged = digest(text) === sha256;
  const at = unchanged ? offset : text.indexOf(inserted);
  if (inserted === "" || at === -1 || (!unchanged && text.indexOf(inserted, at + 1) !== -1)) return undefined;
  return text.slice(0, at) + removed + text.slice(at + inserted.length);
}

/** Whether what the install put into the file is in it: whoever took that out by hand may have put something else of that name there. */
export function isStillThere(undo: Undo | undefined, text: string | undefined): boolean {
  return undo !== undefined && undo.inserted !== "" && text?.includes(undo.inserted) === true;
}

export async function keepUndo(file: string, name: string, undo: Undo): Promise<void> {
  await makeDirectory(directory());
  await writeAtomic(pathOf(file, name), JSON.stringify(undo), 0o600);
}

/** Undefined if there is none that can be read. */
export async function findUndo(file: string, name: string): Promise<Undo | undefined> {
  try {
    const found = JSON.parse((await readRegular(pathOf(file, name), maxBytes)).toString("utf8")) as Partial<Undo>;
    const { removed, inserted, sha256, offset, created, directories } = found;
    if (typeof removed !== "string" || typeof inserted !== "string" || typeof sha256 !== "string" || !Number.isInteger(offset) || typeof created !== "boolean" || !Array.isArray(directories)) return undefined;
    return { removed, inserted, sha256, offset: offset!, created, directories: directories.map(String) };
  } catch (error) {
    log("no record of an install", { file, why: String(error) });
    return undefined;
  }
}

export async function forgetUndo(file: string, name: string): Promise<void> {
  await rm(pathOf(file, name), { force: true });
}

function directory(): string {
  return join(stateDirectory(), "mcp-installs");
}

function pathOf(file: string, name: string): string {
  return join(directory(), `${digest(`${file}\0${name}`).slice(0, 32)}.json`);
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
