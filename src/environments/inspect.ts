/** What environments there are, and what is known of one. Nothing is changed or fetched. */
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { catalog, isInCatalog } from "./catalog.js";
import { environmentImage, environmentOf, type Environment, type EnvironmentDetails } from "./environment.js";
import { bootFiles, type Manifest } from "./manifest.js";
import { builtDigest } from "./sources/built.js";
import { readUserCatalog } from "./user-catalog.js";
import { findInstalled, installedNames, sourceOfName, type Installed } from "./store.js";
import { findWanted } from "./wanted.js";

export interface LookOptions {
  signal?: AbortSignal;
}

/** All of the catalog, and what else is installed. Throws CANCELLED. */
export async function listEnvironments(options: LookOptions = {}): Promise<Environment[]> {
  const users = await readUserCatalog();
  const installed = await installedNames();
  const names = new Set([...[...catalog, ...users].map(({ name }) => name), ...installed.flatMap(({ name }) => name ?? []).sort()]);
  return Promise.all([...names].map(async (name) => {
    const manifest = (await look(name, options.signal)).installed?.manifest;
    return environmentOf(name, manifest && asNamed(name, manifest, installed.find((each) => each.name === name)?.source), users.find((each) => each.name === name));
  }));
}

/** What can be named now: all of the catalog, and what else is installed. Quick, as no file of theirs is read: whether they are whole is not known. */
export async function environmentNames(): Promise<{ name: string; description: string }[]> {
  const named = [...catalog, ...(await readUserCatalog().catch(() => []))];
  const others = (await installedNames()).flatMap(({ name }) => (name === undefined || named.some((entry) => entry.name === name) ? [] : [name]));
  return [...named, ...others.map((name) => ({ name, description: "installed" }))].map(({ name, description }) => ({ name, description }));
}

/** Also of names that are in the catalog and not installed. Throws NOT_FOUND, INVALID_ARGUMENT, CANCELLED. */
export async function inspectEnvironment(given: string, options: LookOptions = {}): Promise<EnvironmentDetails> {
  const { name } = await findWanted(given);
  const { installed, damage } = await look(name, options.signal);
  if (installed === undefined) return { ...environmentOf(name, undefined), ...(damage === undefined ? {} : { damage }) };
  const { directory } = installed;
  const manifest = asNamed(name, installed.manifest, await sourceOfName(name).catch(() => undefined));
  return {
    ...environmentOf(name, manifest),
    createdAt: manifest.createdAt,
    kernel: { version: manifest.kernel.version, digest: manifest.kernel.digest, source: manifest.kernel.source },
    files: bootFiles.map((each) => ({ name: each, ...manifest.files[each] })),
    packages: manifest.packages,
    ...(manifest.image && { image: environmentImage(manifest.image) }),
    directory,
  };
}

/** One image may have come from several places, and was installed once: what is said of it is of the place that `name` stands for; `source` is the one that was kept with a name of the user's own. */
function asNamed(name: string, manifest: Manifest, source: string | undefined): Manifest {
  if (manifest.image === undefined || isInCatalog(name)) return manifest;
  const reference = source ?? name;
  if (reference === manifest.image.reference || reference === "-" || builtDigest(reference) !== undefined) return manifest;
  return { ...manifest, source: reference, image: { ...manifest.image, reference } };
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
