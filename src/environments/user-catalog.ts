/** Names of the user's own for images, in a file: `{"schema_version": 1, "environments": [{"name", "description", "sources": [IMAGE…]}]}`. */
import { join } from "node:path";
import { PyroError } from "../base/error.js";
import { homeDirectory } from "../base/paths.js";
import { settings } from "../base/settings.js";
import { isInCatalog } from "./catalog.js";
import { checkOwnName } from "./images/reference.js";
import { readRecord } from "./record.js";

export interface UserEntry {
  name: string;
  description: string;
  /** Images, the one that is tried first first. */
  sources: string[];
}

const limits = { bytes: 1 << 20, names: 1000, sources: 16 } as const;

const example = '{"schema_version": 1, "environments": [{"name": "ci", "sources": ["registry.example/team/ci:1"]}]}';

/** Empty where there is no such file, unless it was asked for. Throws ENVIRONMENT_INVALID, INVALID_ARGUMENT for names that can't be, NOT_FOUND. */
export async function readUserCatalog(): Promise<UserEntry[]> {
  const named = settings.userCatalog();
  const path = named ?? join(settings.xdgConfigHome() ?? join(homeDirectory(), ".config"), "pyro-mcp", "catalog.json");
  try {
    return await read(path, named);
  } catch (error) {
    if (!(error instanceof PyroError) || error.hint !== undefined) throw error;
    const { code, message } = error;
    const without = named === undefined ? "move the file away" : "unset PYRO_CATALOG";
    throw new PyroError(code, message.includes(path) ? message : `${path}: ${message}`, { hint: `Mend it, or ${without} to do without. It looks like this: ${example}`, cause: error });
  }
}

async function read(path: string, named: string | undefined): Promise<UserEntry[]> {
  const record = await readRecord(path, limits.bytes);
  if (record === undefined) {
    if (named === undefined) return [];
    throw new PyroError("NOT_FOUND", `There is no catalog at ${path}.`, { hint: "PYRO_CATALOG names the file; unset it to do without." });
  }
  record.integer("schema_version", 1, 1);
  return record.list("environments", limits.names).map((each) => {
    const name = each.text("name", 128);
    checkOwnName(name);
    if (isInCatalog(name)) throw new PyroError("INVALID_ARGUMENT", `${path} has the name ${name}, which is pyro's own.`);
    const sources = each.strings("sources", limits.sources, 256);
    if (sources.length === 0) throw new PyroError("INVALID_ARGUMENT", `${path} has no source for ${name}.`);
    return { name, description: each.has("description") ? each.text("description", 200) : `Image ${sources[0]}`, sources };
  });
}
