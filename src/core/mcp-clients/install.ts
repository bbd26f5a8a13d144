/** Putting pyro's MCP server into a client's configuration and taking it out: first what would change, then, if somebody agrees, the change. */
import { existsSync, lstatSync } from "node:fs";
import { PyroError } from "../../base/error.js";
import { stringify } from "smol-toml";
import { configFile, configFiles, findClient, type Scope, type Client } from "./clients.js";
import { readConfig, removeConfig, writeConfig } from "./config-file.js";
import { serverCommand } from "./server-command.js";
import { isPyros, isWithoutServer, serversIn, withoutServer, withServer } from "./servers.js";
import { findUndo, forgetUndo, isStillThere, keepUndo, undoOf, undone } from "./undo.js";
import { UnreadableText } from "./unreadable.js";

export interface Target {
  /** `claude-code`, `codex` … */
  client: string;
  /** Default `user`. */
  scope?: Scope;
  /** What the server is called there, 1 to 64 letters, digits, `-` and `_`; default `pyro`. */
  name?: string;
  /** Whose project `project` means. */
  directory: string;
}

export interface ConfigChange {
  action: "add" | "update" | "remove" | "none";
  /** For people: `Claude Code`. */
  title: string;
  file: string;
  name: string;
  scope: Scope;
  /** Undefined: there is no file. */
  before: string | undefined;
  /** Undefined: there will be none. */
  after: string | undefined;
}

/** `script` is the name that this program was started by. Throws NOT_FOUND, UNSUPPORTED, EXISTS, DENIED. */
export async function planInstall(target: Target, script: string): Promise<ConfigChange> {
  const { client, scope, name } = checked(target);
  const entry = client.entry(serverCommand(scope, script));
  const file = await fileWith(target, scope, name);
  const before = await readConfig(file);
  const undo = await findUndo(file, name);
  return readable(file, () => {
    const old = serversIn(client, before ?? "").get(name);
    if (old !== undefined && !isPyros(old) && !isStillThere(undo, before)) throw notOurs(client, file, name);
    const after = withServer(client, before ?? "", name, entry);
    return { action: after === before ? "none" : old === undefined ? "add" : "update", title: client.title, file, name, scope, before, after };
  });
}

/** Throws NOT_FOUND, UNSUPPORTED, EXISTS (the entry of that name starts something else), DENIED. */
export async function planUninstall(target: Target): Promise<ConfigChange> {
  const { client, scope, name } = checked(target);
  const file = await fileWith(target, scope, name);
  const before = await readConfig(file);
  const undo = await findUndo(file, name);
  return readable(file, () => {
    const old = serversIn(client, before ?? "").get(name);
    const facts = { title: client.title, file, name, scope, before };
    if (before === undefined || old === undefined) return { action: "none", ...facts, after: before };
    if (!isPyros(old) && !isStillThere(undo, before)) throw notOurs(client, file, name);
    const exact = undo === undefined ? undefined : undone(before, undo);
    const made = exact === "" && undo!.created;
    if (made && !lstatSync(file).isSymbolicLink()) return { action: "remove", ...facts, after: undefined };
    if (!made && exact !== undefined && tries(() => isWithoutServer(client, before, exact, name))) return { action: "remove", ...facts, after: exact };
    return { action: "remove", ...facts, after: withoutServer(client, before, name) };
  });
}

/** Throws DENIED, DISK_FULL, and INVALID_STATE if the file is not any more what it was when the change was planned. */
export async function applyChange({ action, file, name, scope, before, after }: ConfigChange): Promise<void> {
  if (action === "none") return;
  const undo = await findUndo(file, name);
  if (after === undefined) {
    await removeConfig(file, before!, undo?.directories ?? []);
  } else {
    const made = await writeConfig(file, before, after, scope === "user" ? 0o600 : 0o644);
    if (action === "add") await keepUndo(file, name, undoOf(before, after, made));
    const original = action === "update" && undo !== undefined ? undone(before!, undo) : undefined;
    if (original !== undefined) await keepUndo(file, name, undoOf(undo!.created && original === "" ? undefined : original, after, undo!.directories));
  }
  if (action === "remove") await forgetUndo(file, name);
}

/** The piece of configuration, to be pasted into `file`. Throws NOT_FOUND, UNSUPPORTED. */
export async function configPiece(target: Target, script: string): Promise<{ title: string; file: string; text: string }> {
  const { client, scope, name } = checked(target);
  const piece = [...client.container, name].reduceRight<unknown>((inner, key) => ({ [key]: inner }), client.entry(serverCommand(scope, script)));
  return { title: client.title, file: configFile(target.client, scope, target.directory), text: client.format === "toml" ? stringify(piece) : `${JSON.stringify(piece, undefined, 2)}\n` };
}

function checked({ client, scope = "user", name = "pyro" }: Target): { client: Client; scope: Scope; name: string } {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) throw new PyroError("INVALID_ARGUMENT", `The name "${name}" can't be a server's in every client.`, { hint: "Use 1 to 64 letters, digits, - and _." });
  return { client: findClient(client), scope, name };
}

/** Of the files that the client reads, the one with that server in it. */
async function fileWith({ client, directory }: Target, scope: Scope, name: string): Promise<string> {
  for (const file of configFiles(client, scope, directory).filter((each) => existsSync(each))) {
    const text = await readConfig(file);
    if (tries(() => serversIn(findClient(client), text ?? "").has(name))) return file;
  }
  return configFile(client, scope, directory);
}

function notOurs(client: Client, file: string, name: string): PyroError {
  return new PyroError("EXISTS", `In ${file} the server "${name}" of ${client.title} is not pyro's; it was left as it is.`, { hint: "Give another --name." });
}

function readable<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof UnreadableText)) throw error;
    throw new PyroError("UNSUPPORTED", `${file} was left as it is: it is ${error.message}.`, { cause: error, hint: "Mend it, or add by hand what `pyro mcp print-config` prints." });
  }
}

/** False, too, for a text that can't be read. */
function tries(work: () => boolean): boolean {
  try {
    return work();
  } catch (error) {
    if (error instanceof UnreadableText) return false;
    throw error;
  }
}
