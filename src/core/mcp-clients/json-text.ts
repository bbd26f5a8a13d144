/** Servers in the text of a JSON file with comments (JSONC): read, put in and taken out, and nothing else in it is touched. */
import { createScanner, parseTree, printParseErrorCode, getNodeValue, type Node, type ParseError } from "jsonc-parser";
import { positionOf, UnreadableText } from "./unreadable.js";

/** Tokens of jsonc-parser's scanner (`SyntaxKind`, a const enum). */
const kinds = { comma: 5, lineComment: 12, blockComment: 13, lineBreak: 14, blank: 15, end: 17 } as const;

/** Throws UnreadableText. */
export function parseJson(text: string): Record<string, unknown> {
  if (text.trim() === "") return {};
  try {
    return getNodeValue(treeOf(text)) as Record<string, unknown>;
  } catch (error) {
    if (error instanceof RangeError) throw new UnreadableText("nested too deeply"); // the parser's stack
    throw error;
  }
}

/** `text` with `value` at `path`, whose last key is new there. Objects on the way that are missing are made. */
export function addToJson(text: string, path: readonly string[], value: unknown): string {
  if (text.trim() === "") return `${text.trimEnd()}${print(nest(path, value), "  ", "", "\n")}\n`;
  const { node, rest } = deepest(treeOf(text), path);
  return insertProperty(text, node, rest[0]!, nest(rest.slice(1), value));
}

/** `text` with other values for some keys of the object at `path`; keys that are not there are added. */
export function changeInJson(text: string, path: readonly string[], values: Readonly<Record<string, unknown>>): string {
  let changed = text;
  for (const [key, value] of Object.entries(values)) {
    const { node } = deepest(treeOf(changed), path);
    const old = propertyOf(node, key)?.children?.[1];
    if (old === undefined) changed = insertProperty(changed, node, key, value);
    else if (JSON.stringify(getNodeValue(old)) !== JSON.stringify(value)) changed = splice(changed, old.offset, old.offset + old.length, printLike(changed, old, value));
  }
  return changed;
}

/** `text` without the property at `path`. Comments beside it stay. */
export function removeFromJson(text: string, path: readonly string[]): string {
  const { node: object } = deepest(treeOf(text), path.slice(0, -1));
  const property = propertyOf(object, path.at(-1)!)!;
  const index = object.children!.indexOf(property);
  const before = index === 0 ? object.offset + 1 : endOf(object.children![index - 1]!);
  const after = index + 1 < object.children!.length ? object.children![index + 1]!.offset : endOf(object) - 1;
  const ownComma = tokens(text, endOf(property), after).find((each) => each.kind === kinds.comma);
  // From the end of what stands before it, so that its line goes as well.
  const from = tokens(text, before, property.offset).findLast((each) => !isBlank(each.kind))?.end ?? before;
  const removed = splice(text, from, ownComma?.end ?? endOf(property), "");
  const comma = ownComma === undefined && index > 0 ? tokens(text, before, property.offset).find((each) => each.kind === kinds.comma) : undefined;
  return comma === undefined ? removed : splice(removed, comma.end - 1, comma.end, "");
}

function treeOf(text: string): Node {
  const errors: ParseError[] = [];
  const tree = parseTree(text, errors, { allowTrailingComma: true });
  const [error] = errors;
  if (error !== undefined) throw new UnreadableText(`not JSON: ${printParseErrorCode(error.error)} at ${positionOf(text, error.offset)}`);
  if (tree?.type !== "object") throw new UnreadableText("JSON, but no object");
  return tree;
}

/** The object that is furthest on the way, and what of the way is left. Throws UnreadableText where something else is in the way. */
function deepest(tree: Node, path: readonly string[]): { node: Node; rest: readonly string[] } {
  let node = tree;
  for (const [index, key] of path.entries()) {
    const next = propertyOf(node, key)?.children?.[1];
    if (next === undefined) return { node, rest: path.slice(index) };
    if (next.type !== "object") throw new UnreadableText(`JSON, but "${path.slice(0, index + 1).join(".")}" in it is no object`);
    node = next;
  }
  return { node, rest: [] };
}

function propertyOf(object: Node, key: string): Node | undefined {
  return object.children?.find((each) => each.children?.[0]?.value === key);
}

/** Behind the last property, in the way that the object is written: on a line of its own, or in the same line. */
function insertProperty(text: string, object: Node, key: string, value: unknown): string {
  const close = endOf(object) - 1;
  const last = object.children?.at(-1);
  const inner = tokens(text, last === undefined ? object.offset + 1 : endOf(last), close);
  const trailingComma = inner.find((each) => each.kind === kinds.comma);
  const ownLine = last === undefined ? text.trim().length === object.length || text.trim().includes("\n") : text.slice(object.offset, close).includes("\n");
  if (!ownLine) {
    const at = trailingComma?.end ?? (last === undefined ? object.offset + 1 : endOf(last));
    const piece = `${JSON.stringify(key)}: ${JSON.stringify(value)}`;
    return splice(text, at, at, last === undefined ? piece : trailingComma === undefined ? `, ${piece}` : ` ${piece},`);
  }
  const newline = newlineOf(text);
  const step = stepOf(text);
  const outer = indentAt(text, object.offset);
  const indent = last !== undefined && isFirstInLine(text, last.offset) ? indentAt(text, last.offset) : outer + step;
  const shown = inner.findLast((each) => !isBlank(each.kind));
  const from = shown?.end ?? (last === undefined ? object.offset + 1 : endOf(last));
  const closing = last === undefined && !text.slice(from, close).includes("\n") ? newline + outer : text.slice(from, close);
  const piece = `${newline}${indent}${JSON.stringify(key)}: ${print(value, step, indent, newline)}${trailingComma === undefined ? "" : ","}${closing}`;
  const inserted = splice(text, from, close, piece);
  return last === undefined || trailingComma !== undefined ? inserted : splice(inserted, endOf(last), endOf(last), ",");
}

/** On one line where the old value was. */
function printLike(text: string, old: Node, value: unknown): string {
  const was = text.slice(old.offset, endOf(old));
  return was.includes("\n") ? print(value, stepOf(text), indentAt(text, old.offset), newlineOf(text)) : JSON.stringify(value);
}

function print(value: unknown, step: string, indent: string, newline: string): string {
  return JSON.stringify(value, undefined, step).replaceAll("\n", newline + indent);
}

function nest(path: readonly string[], value: unknown): unknown {
  return path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
}

interface Token {
  kind: number;
  end: number;
}

function tokens(text: string, from: number, to: number): Token[] {
  const scanner = createScanner(text);
  scanner.setPosition(from);
  const found: Token[] = [];
  while (scanner.scan() !== (kinds.end as number) && scanner.getTokenOffset() < to) found.push({ kind: scanner.getToken(), end: scanner.getPosition() });
  return found;
}

function isBlank(kind: number): boolean {
  return kind === kinds.lineBreak || kind === kinds.blank;
}

function endOf(node: Node): number {
  return node.offset + node.length;
}

function splice(text: string, from: number, to: number, piece: string): string {
  return text.slice(0, from) + piece + text.slice(to);
}

export function newlineOf(text: string): string {
  return text.includes("\r\n") ? "\r\n" : "\n";
}

/** What one level is indented by: as the first property is. */
function stepOf(text: string): string {
  return /^\s*\{[^"]*?\n([ \t]+)"/.exec(text)?.[1] ?? "  ";
}

/** The blanks that the line of `offset` begins with. */
function indentAt(text: string, offset: number): string {
  return /^[ \t]*/.exec(text.slice(text.lastIndexOf("\n", offset - 1) + 1))![0];
}

function isFirstInLine(text: string, offset: number): boolean {
  return text.slice(text.lastIndexOf("\n", offset - 1) + 1, offset).trim() === "";
}
