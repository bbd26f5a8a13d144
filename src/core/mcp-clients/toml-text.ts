/**
 * Servers in the text of a TOML file. No library writes TOML back with its comments and order, so ours is a table of its own at the end, and each change is
 * tried on the text and taken only if a parser finds exactly that change in it.
 */
import { isDeepStrictEqual } from "node:util";
import { parse, stringify, TomlError } from "smol-toml";
import { newlineOf } from "./json-text.js";
import { plain, type Table } from "./table.js";
import { UnreadableText } from "./unreadable.js";

/** Throws UnreadableText. */
export function parseToml(text: string): Table {
  try {
    return plain(parse(text, { integersAsBigInt: "asNeeded" })) as Table;
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new UnreadableText(`not TOML: ${error.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "")} at line ${error.line}, column ${error.column}`);
  }
}

/** `text` with the table `path` behind it, which is new. */
export function addToToml(text: string, path: readonly string[], value: Table): string {
  const newline = newlineOf(text);
  const table = stringify(path.reduceRight<Table>((inner, key) => ({ [key]: inner }), value)).trimEnd();
  const gap = text === "" ? "" : text.endsWith("\n") ? newline : newline + newline;
  return `${text}${gap}${table.replaceAll("\n", newline)}${newline}`;
}

/** `text` with other values for some keys of the table `path`. Throws UnreadableText where they are written in a way that is not known here. */
export function changeInToml(text: string, path: readonly string[], values: Table): string {
  let changed = text;
  for (const [key, value] of Object.entries(values)) {
    const wanted = parseToml(changed);
    const table = path.reduce((at, each) => at[each] as Table, wanted);
    if (isDeepStrictEqual(table[key], value)) continue;
    table[key] = value;
    const line = stringify({ [key]: value }).trimEnd();
    changed = firstThat(changed, path, wanted, (lines, { from, to }) => {
      const at = lines.findIndex((each, index) => index > from && index < to && new RegExp(`^[ \\t]*(?:${key}|"${key}"|'${key}')[ \\t]*=`).test(each));
      if (at === -1) return [[...lines.slice(0, from + 1), line, ...lines.slice(from + 1)]];
      // A list may go over several lines.
      return Array.from({ length: Math.min(to - at, maxLines) }, (_, more) => [...lines.slice(0, at), line, ...lines.slice(at + more + 1)]);
    });
  }
  return changed;
}

/** `text` without the table `path` and the tables below it. */
export function removeFromToml(text: string, path: readonly string[]): string {
  const wanted = parseToml(text);
  const above = path.slice(0, -1);
  const container = above.reduce((at, each) => at[each] as Table, wanted);
  delete container[path.at(-1)!];
  // With the last table below it, one that only has tables is gone as well.
  if (above.length === 1 && Object.keys(container).length === 0) {
    const without = Object.fromEntries(Object.entries(wanted).filter(([key]) => key !== above[0]));
    try {
      return firstThat(text, path, without, withoutRegion);
    } catch {
      // there is a line that makes the container
    }
  }
  return firstThat(text, path, wanted, withoutRegion);
}

function withoutRegion(lines: readonly string[], { from, to }: Region): string[][] {
  // The blank line that was put before a table at the end goes with it.
  const last = lines.slice(to).every((each) => each.trim() === "");
  const start = last && from > 0 && lines[from - 1]!.trim() === "" ? from - 1 : from;
  return [[...lines.slice(0, start), ...lines.slice(to)]];
}

/** Lines of a table and of those below it: from its header up to, and not with, what follows. */
interface Region {
  from: number;
  to: number;
}

const maxLines = 200;
const maxTries = 2000;

/** The first of the texts that `edit` proposes for any place where the table may be, that a parser reads as `wanted`. */
function firstThat(text: string, path: readonly string[], wanted: Table, edit: (lines: readonly string[], region: Region) => readonly (readonly string[])[]): string {
  const newline = newlineOf(text);
  const lines = text.split(newline);
  let tries = 0;
  for (const region of regions(lines, path)) {
    for (const proposed of edit(lines, region)) {
      if (++tries > maxTries) break;
      const result = proposed.join(newline);
      if (reads(result, wanted)) return result;
    }
  }
  throw new UnreadableText(`TOML, but [${path.join(".")}] in it is written in a way that pyro can't change`);
}

/** A header inside of a string or a list looks like any other: those are found wrong when the result is read. */
function* regions(lines: readonly string[], path: readonly string[]): Generator<Region> {
  const name = path.map((key) => `(?:${key}|"${key}"|'${key}')`).join("[ \\t]*\\.[ \\t]*");
  const own = new RegExp(`^[ \\t]*\\[[ \\t]*${name}[ \\t]*(\\]|\\.)`);
  for (const [from, line] of lines.entries()) {
    if (!own.test(line)) continue;
    for (let at = from + 1; at <= lines.length; at++) {
      if (at < lines.length && (!/^[ \t]*\[/.test(lines[at]!) || own.test(lines[at]!))) continue;
      let to = at;
      // What stands above the next header belongs to it, and so does a last line that is empty.
      while (to > from + 1 && /^[ \t\r]*(#.*)?$/.test(lines[to - 1]!)) to--;
      yield { from, to };
    }
  }
}

function reads(text: string, wanted: Table): boolean {
  try {
    return isDeepStrictEqual(parseToml(text), wanted);
  } catch {
    return false;
  }
}
