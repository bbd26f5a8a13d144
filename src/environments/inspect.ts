/** What environments there are, and what is known of one. Nothing is changed or fetched. */
import { PyroError } from "../base/error.js";
import { catalog, findEntry } from "./catalog.js";
import { environmentOf, type Environment, type EnvironmentDetails } from "./environment.js";
import { bootFiles } from "./manifest.js";
import { findInstalled, type Installed } from "./store.js";

export async function listEnvironments(): Promise<Environment[]> {
  return Promise.all(catalog.map(async (entry) => environmentOf(entry, (await look(entry.name)).installed?.manifest)));
}

/** Also of names that are in the catalog and not installed. Throws NOT_FOUND, UNSUPPORTED. */
export async function inspectEnvironment(name: string): Promise<EnvironmentDetails> {
  const entry = findEntry(name);
  const { installed, damage } = await look(name);
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

async function look(name: string): Promise<{ installed?: Installed; damage?: string }> {
  try {
    const installed = await findInstalled(name, "stamps");
    return installed === undefined ? {} : { installed };
  } catch (error) {
    if (error instanceof PyroError && error.code === "ENVIRONMENT_INVALID") return { damage: error.message };
    throw error;
  }
}
