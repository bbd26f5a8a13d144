/** In which clients pyro is configured, and whether what they would start is still there. */
import { accessSync, constants, existsSync } from "node:fs";
import { isAbsolute } from "node:path";
import { findProgram } from "../../base/child.js";
import { toPyroError } from "../../base/error.js";
import { clientNames, clients, configFiles, scopes, type ClientName, type Scope } from "./clients.js";
import { readConfig } from "./config-file.js";
import { isPyros, serversIn, wordsOf } from "./servers.js";
import { UnreadableText } from "./unreadable.js";

export interface InstalledEntry {
  client: ClientName;
  scope: Scope;
  name: string;
  file: string;
  /** What is started, for people. */
  command: string;
  /** Why it can't be started. */
  problem?: string;
}

/** What the user's files have, and those of the project in `directory`. A file that can't be read has none. */
export async function installedEntries(directory: string): Promise<InstalledEntry[]> {
  const found: InstalledEntry[] = [];
  for (const client of clientNames) {
    for (const scope of scopes) {
      if (scope === "project" && clients[client].project.length === 0) continue;
      for (const file of configFiles(client, scope, directory).filter((each) => existsSync(each))) found.push(...(await entriesIn(client, scope, file)));
    }
  }
  return found;
}

async function entriesIn(client: ClientName, scope: Scope, file: string): Promise<InstalledEntry[]> {
  let servers;
  try {
    servers = serversIn(clients[client], (await readConfig(file)) ?? "");
  } catch (error) {
    // Whether it is pyro's concern can't be told.
    if (error instanceof UnreadableText || toPyroError(error).code !== "INTERNAL") return [];
    throw error;
  }
  const own = [...servers].filter(([, entry]) => isPyros(entry));
  return Promise.all(own.map(async ([name, entry]) => {
    const words = wordsOf(entry);
    const problem = await problemOf(words);
    return { client, scope, name, file, command: words.join(" "), ...(problem !== undefined && { problem }) };
  }));
}

async function problemOf([program, script]: readonly string[]): Promise<string | undefined> {
  try {
    await findProgram(program!);
  } catch {
    return isAbsolute(program!) ? `${program} is not there any more` : `${program} is not in PATH`;
  }
  if (script === undefined || !isAbsolute(script)) return undefined;
  try {
    accessSync(script, constants.R_OK);
    return undefined;
  } catch {
    return `${script} is not there any more`;
  }
}
