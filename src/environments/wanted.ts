/** What a name asks for: an environment of the catalog, one that was installed under a name of its own, or an image. */
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { nearest } from "../base/nearest.js";
import { catalog, catalogSources, type CatalogEntry } from "./catalog.js";
import { checkOwnName, isImageName, parseImageName, printReference, type ImageReference } from "./images/reference.js";
import { readUserCatalog } from "./user-catalog.js";
import { installedNames, sourceOfName } from "./store.js";

export interface Wanted {
  /** In full: two ways of writing it are one name. */
  name: string;
  /** What it is made from; the first one that can be had. */
  sources: readonly WantedSource[];
  /** Of a name in the catalog. */
  entry?: CatalogEntry;
}

export type WantedSource = { image: ImageReference } | { debian: CatalogEntry };

/** For people. */
export function printSource(source: WantedSource): string {
  return "image" in source ? printReference(source.image) : "Debian's archive";
}

/** The word for the archive where a source is asked for. */
const archiveWord = "debian-archive";

/** Throws NOT_FOUND with the nearest names, INVALID_ARGUMENT for what looks like an image's name and is none. */
export async function findWanted(name: string): Promise<Wanted> {
  const entry = catalog.find((each) => each.name === name);
  if (entry !== undefined) return { name, entry, sources: await sourcesOf(entry) };
  const users = (await readUserCatalog()).find((each) => each.name === name);
  if (users !== undefined) return { name, sources: await Promise.all(users.sources.map(imageSource)) };
  const own = await findOwn(name);
  if (own !== undefined) return own;
  if (isImageName(name)) {
    const image = await parseImageName(name);
    return { name: printReference(image), sources: [{ image }] };
  }
  throw await notFound(name);
}

/** `name` out of `source`, whatever it stands for else. Throws INVALID_ARGUMENT. */
export async function wantedFrom(name: string, source: string): Promise<Wanted> {
  checkOwnName(name);
  const entry = catalog.find((each) => each.name === name);
  if (entry === undefined) return { name, sources: [await imageSource(source)] };
  return { name, entry, sources: [source === archiveWord ? { debian: entry } : await imageSource(source)] };
}

async function sourcesOf(entry: CatalogEntry): Promise<WantedSource[]> {
  const { images, archive } = catalogSources(entry);
  return [...(await Promise.all(images.map(imageSource))), ...(archive ? [{ debian: entry }] : [])];
}

async function imageSource(source: string): Promise<WantedSource> {
  return { image: await parseImageName(source) };
}

/** One that was given a name when it was pulled. */
async function findOwn(name: string): Promise<Wanted | undefined> {
  const source = await sourceOfName(name).catch(() => undefined);
  return source === undefined ? undefined : { name, sources: [await imageSource(source)] };
}

async function notFound(name: string): Promise<PyroError> {
  const names = [...catalog.map((each) => each.name), ...(await readUserCatalog()).map((each) => each.name), ...(await installedNames()).flatMap((each) => each.name ?? [])];
  const all = `Available are ${[...new Set(names)].join(", ")}, and images: docker.io/library/NAME:TAG, ./DIRECTORY, ./ARCHIVE.tar.`;
  const near = nearest(name, names);
  return new PyroError("NOT_FOUND", `There is no environment "${harmlessLine(name, 200)}".`, { hint: near.length === 0 ? all : `Did you mean ${near.join(" or ")}? ${all}` });
}
