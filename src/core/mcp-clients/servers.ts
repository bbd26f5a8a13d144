/** The servers in a client's configuration, whatever its format: what is there, and the text after a change. No change is made that a parser would not read as that change alone. */
import { isDeepStrictEqual } from "node:util";
import { basename } from "node:path";
import type { Client } from "./clients.js";
import { addToJson, changeInJson, parseJson, removeFromJson } from "./json-text.js";
import { isTable, plain, type Table } from "./table.js";
import { addToToml, changeInToml, parseToml, removeFromToml } from "./toml-text.js";
import { UnreadableText } from "./unreadable.js";

const formats = {
  json: { parse: parseJson, add: addToJson, change: changeInJson, remove: removeFromJson },
  toml: { parse: parseToml, add: addToToml, change: changeInToml, remove: removeFromToml },
} as const;

/** The entries by name. Throws UnreadableText. */
export function serversIn(client: Client, text: string): ReadonlyMap<string, Table> {
  const config = formats[client.format].parse(text);
  const servers = at(config, containerOf(client, config));
  return new Map(Object.entries(servers ?? {}).filter((pair): pair is [string, Table] => isTable(pair[1])));
}

/** `text` with the server in it: behind those that are there, or, where one of that name is there, with what `entry` says of it. Throws UnreadableText. */
export function withServer(client: Client, text: string, name: string, entry: Table): string {
  const { parse, add, change } = formats[client.format];
  const config = parse(text);
  const path = [...containerOf(client, config), name];
  const old = at(config, path);
  const changed = old === undefined ? add(text, path, entry) : change(text, path, entry);
  return checked(client, changed, set(config, path, { ...old, ...entry }));
}

/** `text` without the server, which is there. Throws UnreadableText. */
export function withoutServer(client: Client, text: string, name: string): string {
  const { parse, remove } = formats[client.format];
  const config = parse(text);
  const path = [...containerOf(client, config), name];
  const changed = remove(text, path);
  delete at(config, path.slice(0, -1))![name];
  // TOML's tables are there by being filled.
  const top = path[0]!;
  const emptied = client.format === "toml" && !Object.hasOwn(parse(changed), top) ? without(config, top) : config;
  return checked(client, changed, emptied);
}

/** Whether `after` is `before` without the server, and without objects that had nothing else in them. */
export function isWithoutServer(client: Client, before: string, after: string, name: string): boolean {
  const { parse } = formats[client.format];
  const config = parse(before);
  const path = containerOf(client, config);
  delete at(config, path)?.[name];
  return isDeepStrictEqual(pruned(config, path), pruned(parse(after), path));
}

/** The program and arguments of an entry; empty where it has none. */
export function wordsOf({ command, args }: Table): string[] {
  const words = [...(Array.isArray(command) ? command : [command]), ...(Array.isArray(args) ? args : [])];
  return words.every((each): each is string => typeof each === "string") ? words : [];
}

/** Whether an entry starts this program, wherever that is or was: `… pyro mcp serve`, `node …/main.cjs mcp serve`. */
export function isPyros(entry: Table): boolean {
  const words = wordsOf(entry);
  const verb = words.findIndex((each, index) => each === "mcp" && words[index + 1] === "serve");
  return verb > 0 && words.slice(0, verb).some((each) => /^(pyro|pyro-mcp(@.*)?|main\.c?js)$/.test(basename(each)));
}

/** OpenCode 2 writes its servers one level deeper; a server called "servers" has a command of its own. */
function containerOf(client: Client, config: Table): readonly string[] {
  const deeper = client.container[0] === "mcp" ? at(config, ["mcp", "servers"]) : undefined;
  return deeper === undefined || "type" in deeper || "enabled" in deeper ? client.container : ["mcp", "servers"];
}

function checked(client: Client, text: string, wanted: Table): string {
  if (!reads(client, text, wanted)) throw new UnreadableText("written in a way that pyro can't change safely (a key that is there twice?)");
  return text;
}

/** What a parser complains of here is our text, not the user's. */
function reads(client: Client, text: string, wanted: Table): boolean {
  try {
    return isDeepStrictEqual(plain(formats[client.format].parse(text)), plain(wanted));
  } catch (error) {
    if (error instanceof UnreadableText) return false;
    throw error;
  }
}

function set(config: Table, path: readonly string[], value: Table): Table {
  const [key, ...rest] = path;
  return { ...config, [key!]: rest.length === 0 ? value : set(isTable(config[key!]) ? config[key!] as Table : {}, rest, value) };
}

function without(config: Table, key: string): Table {
  return Object.fromEntries(Object.entries(config).filter(([each]) => each !== key));
}

function at(config: Table, path: readonly string[]): Table | undefined {
  let found: unknown = config;
  for (const key of path) found = isTable(found) && Object.hasOwn(found, key) ? found[key] : undefined;
  return isTable(found) ? found : undefined;
}

function pruned(config: Table, path: readonly string[]): Table {
  const [key, ...rest] = path;
  const inner = key === undefined ? undefined : at(config, [key]);
  if (inner === undefined) return plain(config) as Table;
  const kept = pruned(inner, rest);
  return plain(Object.keys(kept).length === 0 ? without(config, key!) : { ...config, [key!]: kept }) as Table;
}
