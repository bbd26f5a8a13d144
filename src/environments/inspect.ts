/** What environments there are, and what is known of one. Nothing is changed or fetched. */
import { readdir } from "node:fs/promises";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { catalog, findEntry } from "./catalog.js";
import { environmentOf, type Environment, type EnvironmentDetails } from "./environment.js";
import { bootFiles } from "./manifest.js";
import { places } from "./places.js";
import { findInstalled, type Installed } from "./store.js";

export interface LookOptions {
  signal?: AbortSignal;
}

/** All of the catalog. Throws CANCELLED. */
export async function listEnvironments(options: LookOptions = {}): Promise<Environment[]> {
  return Promise.all(catalog.map(async (entry) => environmentOf(entry, (await look(entry.name, options.signal)).installed?.manifest)));
}

/** What can be named now: all of the catalog, and what else is installed. Quick, as no file of theirs is read: whether they are whole is not known. */
export async function environmentNames(): Promise<{ name: string; description: string }[]> {
  const names = (await readdir(places.names()).catch(() => [])).filter((each) => each.endsWith(".json")).map((each) => nameOf(each.slice(0, -".json".length)));
  const others = names.filter((name) => name !== undefined && !catalog.some((entry) => entry.name === name)) as string[];
  return [...catalog, ...others.map((name) => ({ name, description: "installed" }))].map(({ name, description }) => ({ name, description }));
}

/** Undefined for a file that no pyro made. */
function nameOf(encoded: string): string | undefined {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
}

/** Also of names that are in the catalog and not installed. Throws NOT_FOUND, UNSUPPORTED, CANCELLED. */
export async function inspectEnvironment(name: string, options: LookOptions = {}): Promise<EnvironmentDetails> {
  const entry = findEntry(name);
  const { installed, damage } = await look(name, options.signal);
  if (installed === undefined) return { ...environmentOf(entry, undefined), ...(damage === undefined ? {} : { damage }) };
  const { manifest, directory } = installed;
  return {
    ...environmentOf(entry, manifest),
    createdAt: manifest.createdAt,
    kernel: { version: manifest.kernel.version, digest: manifest.kernel.digest, source: manifest.kernel.source },
    files: bootFiles.map((each) => ({ name: each, ...manifest.files[each] })),
    packages: manifest.packages,
    directory,
  };
}

async function look(name: string, signal: AbortSignal | undefined): Promise<{ installed?: Installed; damage?: string }> {
  checkSignal(signal);
  try {
    const installed = await findInstalled(name, "stamps", signal);
    return installed === undefined ? {} : { installed };
  } catch (error) {
    if (error instanceof PyroError && error.code === "ENVIRONMENT_INVALID") return { damage: error.message };
    throw error;
  }
}
