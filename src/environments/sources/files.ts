/** Images in files: an OCI layout (image-layout.md of the OCI image specification) or what `docker save` writes, whoever reads the files. */
import { PyroError } from "../../base/error.js";
import { harmlessLine } from "../../base/harmless.js";

import { imageLimits, parseDocument, type Descriptor, type IndexEntry } from "../images/documents.js";
import type { ImageSource } from "../images/image.js";
import { Fields, parseRecord } from "../record.js";

/** Files by their names in a layout or an archive. */
export interface FileSet {
  /** For people. */
  shown: string;
  /** The whole of a small file; undefined if there is none. Throws ENVIRONMENT_INVALID for a larger one. */
  read(name: string, maxBytes: number): Promise<Buffer | undefined>;
  /** From the byte `offset` on; undefined if there is none. */
  open(name: string, offset: number): Promise<AsyncIterable<Uint8Array> | undefined>;
  /** Size and digest, where they are known without being told. */
  measure(name: string): Promise<{ sizeBytes: number; digest: string } | undefined>;
  close(): Promise<void>;
}

/** The image `tag` of several, or the only one. Throws NOT_FOUND, ENVIRONMENT_INVALID for files that are no image. */
export async function openImageFiles(files: FileSet, tag: string | undefined): Promise<ImageSource> {
  const index = await files.read("index.json", imageLimits.maxManifestBytes);
  if (index !== undefined && (await files.read("oci-layout", 4096)) !== undefined) return layoutSource(files, index, tag);
  const list = await files.read("manifest.json", imageLimits.maxManifestBytes);
  if (list !== undefined) return savedSource(files, list, tag);
  throw new PyroError("ENVIRONMENT_INVALID", `${files.shown} is no OCI layout and nothing that docker save wrote: it has neither index.json with oci-layout nor manifest.json.`);
}

function layoutSource(files: FileSet, index: Buffer, tag: string | undefined): ImageSource {
  const what = `The index of ${files.shown}`;
  const document = parseDocument(index, what);
  if (document.kind !== "index") throw new PyroError("ENVIRONMENT_INVALID", `${what} is none.`);
  const entries = chosen(document.manifests, tag, files.shown);
  const read = async (descriptor: Descriptor) => {
    const data = await files.read(blobName(descriptor), imageLimits.maxManifestBytes);
    if (data === undefined) throw missing(descriptor, files);
    return data;
  };
  return {
    shown: `${files.shown}${tag === undefined ? "" : `:${tag}`}`,
    // Of several for as many platforms there is one that fits; the index itself is then what the name stands for.
    root: async () => Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: entries.map(({ mediaType, digest, sizeBytes, platform }) => ({ mediaType, digest, size: sizeBytes, ...(platform && { platform }) })) })),
    document: read,
    open: () => async (descriptor, offset) => {
      const content = await files.open(blobName(descriptor), offset);
      if (content === undefined) throw missing(descriptor, files);
      return { offset, content };
    },
    close: () => files.close(),
  };
}

/** Those of the image that is meant, each once: one for several platforms is several. */
function chosen(manifests: readonly IndexEntry[], tag: string | undefined, shown: string): readonly IndexEntry[] {
  const namesOf = (entries: readonly IndexEntry[]) => [...new Set(entries.flatMap(({ refName, imageName }) => imageName ?? refName ?? []))];
  const matching = tag === undefined ? manifests : manifests.filter(({ refName, imageName }) => [refName, imageName].some((name) => name === tag || name?.endsWith(`/${tag}`)));
  const found = [...new Map(matching.map((each) => [each.digest, each])).values()]; // one with two names is there twice
  if (found.length === 0) throw new PyroError("NOT_FOUND", tag === undefined ? `${shown} has no image.` : `${shown} has no image "${harmlessLine(tag, 128)}".`, namesHint(namesOf(manifests)));
  const names = namesOf(found);
  if (names.length > 1) throw new PyroError("INVALID_ARGUMENT", tag === undefined ? `${shown} has ${names.length} images.` : `${shown} has ${names.length} images that could be meant.`, { hint: `Say which: ${shown}:${harmlessLine(names[0]!, 128)}. ${namesHint(names).hint}` });
  return found;
}

function namesHint(names: readonly string[]): { hint?: string } {
  return names.length === 0 ? {} : { hint: `It has ${names.slice(0, 20).map((each) => harmlessLine(each, 128)).join(", ")}.` };
}

function blobName({ digest }: { digest: string }): string {
  return `blobs/sha256/${digest.slice("sha256:".length)}`;
}

function missing({ digest }: Descriptor, { shown }: FileSet): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `${shown} lacks the content ${digest}.`);
}

/** manifest.json of `docker save`: images with the names of their files. A manifest as registries have it is made of one. */
async function savedSource(files: FileSet, list: Buffer, tag: string | undefined): Promise<ImageSource> {
  const images = parseRecord(Buffer.from(`{"images":${list.toString("utf8")}}`), `manifest.json of ${files.shown}`).list("images", imageLimits.maxManifests, "maxManifests");
  const image = chooseSaved(images, tag, files.shown);
  const names = new Map<string, string>();
  const describe = async (name: string, mediaType: string) => {
    const found = await files.measure(name);
    if (found === undefined) throw new PyroError("ENVIRONMENT_INVALID", `${files.shown} lacks the file ${harmlessLine(name, 200)}.`);
    names.set(found.digest, name);
    return { mediaType, digest: found.digest, size: found.sizeBytes };
  };
  const config = await describe(image.string("Config", 1024), "application/vnd.docker.container.image.v1+json");
  const layers = [];
  for (const name of image.strings("Layers", imageLimits.maxLayers, 1024, "maxLayers")) layers.push(await describe(name, "application/vnd.docker.image.rootfs.diff.tar"));
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers }));
  return {
    shown: `${files.shown}${tag === undefined ? "" : `:${tag}`}`,
    root: async () => manifest,
    document: async () => manifest,
    open: () => async (descriptor, offset) => {
      const content = await files.open(names.get(descriptor.digest) ?? "", offset);
      if (content === undefined) throw missing(descriptor, files);
      return { offset, content };
    },
    close: () => files.close(),
  };
}

function chooseSaved(images: readonly Fields[], tag: string | undefined, shown: string): Fields {
  const tagsOf = (each: Fields) => (each.isSet("RepoTags") ? each.strings("RepoTags", 1000, 1024) : []);
  const all = images.flatMap(tagsOf);
  const found = tag === undefined ? images : images.filter((each) => tagsOf(each).some((name) => name === tag || name.endsWith(`/${tag}`) || name.endsWith(`:${tag}`)));
  if (found.length === 1) return found[0]!;
  if (found.length === 0) throw new PyroError("NOT_FOUND", tag === undefined ? `${shown} has no image.` : `${shown} has no image "${harmlessLine(tag, 128)}".`, namesHint(all));
  throw new PyroError("INVALID_ARGUMENT", `${shown} has ${found.length} images that could be meant.`, namesHint(all));
}

