/** What environments there are, and what is known of one. Nothing is changed or fetched. */
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { catalog, findEntry } from "./catalog.js";
import { environmentOf, type Environment, type EnvironmentDetails } from "./environment.js";
import { bootFiles } from "./manifest.js";
import { findInstalled, type Installed } from "./store.js";

export interface LookOptions {
  signal?: AbortSignal;
}

/** All of the catalog. Throws CANCELLED. */
export async function listEnvironments(options: LookOptions = {}): Promise<Environment[]> {
  return Promise.all(catalog.map(async (entry) => environmentOf(entry, (await look(entry.name, options.signal)).installed?.manifest)));
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
