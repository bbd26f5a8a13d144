/** From a place that has images to what one is made of: index, manifest, configuration, layers. */
import { PyroError } from "../../base/error.js";
import { digestOf } from "../digest.js";
import { fetchBlob, fetchDocument, type OpenBlob } from "./blobs.js";
import { choosePlatform, parseConfig, parseDocument, type ConfigDocument, type Descriptor } from "./documents.js";

/** A place that has images; every kind of place is one file in `sources/`. */
export interface ImageSource {
  /** For people, and without passwords: `docker.io/library/python:3.12-slim`. */
  readonly shown: string;
  /** The document that the image's name stands for: its manifest, or an index of several. */
  root(signal: AbortSignal | undefined): Promise<Buffer>;
  /** A document that an index names, not checked yet. */
  document(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Buffer>;
  open(signal: AbortSignal | undefined): OpenBlob;
  close(): Promise<void>;
}

export interface ResolvedImage {
  source: ImageSource;
  /** Of the manifest for this platform. */
  manifestDigest: string;
  manifest: Buffer;
  config: ConfigDocument;
  configDescriptor: Descriptor;
  /** The lowest first. */
  layers: (Descriptor & { diffId: string })[];
}

/** An index in an index in an index. */
const maxIndexDepth = 4;

/** What `source` has for `platform` (`linux/amd64`). Throws NOT_FOUND, UNSUPPORTED, ENVIRONMENT_INVALID, and what the source throws. */
export async function resolveImage(source: ImageSource, platform: string, signal: AbortSignal | undefined): Promise<ResolvedImage> {
  let data = await source.root(signal);
  let document = parseDocument(data, `The manifest of ${source.shown}`);
  for (let depth = 0; document.kind === "index"; depth++) {
    if (depth === maxIndexDepth) throw new PyroError("ENVIRONMENT_INVALID", `The indexes of ${source.shown} lead to more indexes, over the limit maxIndexDepth (${maxIndexDepth}).`);
    const chosen = choosePlatform(document.manifests, platform, source.shown);
    data = await source.document(chosen, signal);
    if (data.length !== chosen.sizeBytes || digestOf(data) !== chosen.digest) throw new PyroError("REGISTRY", `The manifest that came for ${chosen.digest} of ${source.shown} is not that.`);
    document = parseDocument(data, `The manifest of ${source.shown}`);
  }
  const config = parseConfig(await fetchDocument(document.config, source.open(signal), { signal }), `The configuration of ${source.shown}`);
  const has = `${config.os}/${config.architecture}`;
  if (has !== platform.split("/").slice(0, 2).join("/")) throw new PyroError("UNSUPPORTED", `${source.shown} is an image for ${has}; VMs here run ${platform}.`);
  const { layers } = document;
  if (config.diffIds.length !== layers.length) throw new PyroError("ENVIRONMENT_INVALID", `${source.shown} has ${layers.length} layers, and its configuration speaks of ${config.diffIds.length}.`);
  return { source, manifestDigest: digestOf(data), manifest: data, config, configDescriptor: document.config, layers: layers.map((each, index) => ({ ...each, diffId: config.diffIds[index]! })) };
}

/** Layers that are fetched at once. */
const maxParallel = 4;

/**
 * Begins to fetch all layers, the top ones first, as those are read first. Gives a promise of each one's path, in the layers' order; when one fails,
 * all others do, for the same reason. Whoever calls waits for `settled` before it leaves.
 */
export function fetchLayers(image: ResolvedImage, options: { signal: AbortSignal | undefined; onBytes(index: number, bytes: number): void }): { paths: Promise<string>[]; settled: Promise<unknown> } {
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const open = image.source.open(signal);
  const known = new Map<string, Promise<string>>(); // an image may have one layer several times
  const running = new Set<Promise<unknown>>();
  const fetchOne = async (layer: Descriptor, index: number): Promise<string> => {
    while (running.size >= maxParallel) await Promise.race(running);
    const work = fetchBlob(layer, open, { signal, onBytes: (bytes) => options.onBytes(index, bytes) });
    const done = work.then(() => {}, (error: unknown) => stop.abort(error)).then(() => void running.delete(done));
    running.add(done);
    return work;
  };
  const paths: Promise<string>[] = [];
  for (const [index, layer] of [...image.layers.entries()].toReversed()) {
    const path = known.get(layer.digest) ?? fetchOne(layer, index);
    known.set(layer.digest, path);
    path.catch(() => {});
    paths[index] = path;
  }
  return { paths, settled: Promise.allSettled(paths) };
}
