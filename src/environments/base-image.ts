/** What an installed environment is as an image: of one that was an image its own layers, of one that was made of packages its whole tree as one layer. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { PyroError, systemCode } from "../base/error.js";
import { readRegular } from "../base/regular-file.js";
import { digestOf } from "./digest.js";
import { readErofs } from "./erofs-read.js";
import { hexOf } from "./images/blobs.js";
import { composeImage, type ComposedImage, type ComposedLayer, type ConfigJson } from "./images/compose.js";
import { imageLimits, parseConfig } from "./images/documents.js";
import { layerLimits } from "./images/layer-tar.js";
import { writeLayer } from "./images/new-layer.js";
import { bootFiles, type Manifest } from "./manifest.js";
import { places } from "./places.js";
import { writeTar } from "./tar-write.js";

export interface BaseImage {
  config: ConfigJson;
  /** The lowest first. */
  layers: ComposedLayer[];
}

export interface BaseOptions {
  signal?: AbortSignal | undefined;
  /** Bytes of the tree that have been written so far, and all of them, about. */
  onBytes?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * A layer that has to be made goes to `directory`, an empty one. The caller holds the store's lock. Throws ENVIRONMENT_INVALID where what the image was made of is not kept any
 * more, DISK_FULL, CANCELLED.
 */
export async function baseImage(manifest: Manifest, directory: string, options: BaseOptions = {}): Promise<BaseImage> {
  return manifest.image === undefined ? packagesImage(manifest, directory, options) : keptImage(manifest.name, manifest.image);
}

async function keptImage(name: string, image: NonNullable<Manifest["image"]>): Promise<BaseImage> {
  const data = await readRegular(places.blob(hexOf({ digest: image.configDigest })), imageLimits.maxConfigBytes).catch((error: unknown) => {
    throw systemCode(error) === "ENOENT" ? notKept(name, image.configDigest) : error;
  });
  if (digestOf(data) !== image.configDigest) throw notKept(name, image.configDigest);
  const { diffIds } = parseConfig(data, `The configuration of ${name}`);
  if (diffIds.length !== image.layers.length) throw notKept(name, image.configDigest);
  const layers = image.layers.map((layer, index) => ({ ...layer, diffId: diffIds[index]!, path: places.blob(hexOf(layer)) }));
  for (const { digest, sizeBytes, path } of layers) if ((await stat(path).catch(() => undefined))?.size !== sizeBytes) throw notKept(name, digest);
  const config = JSON.parse(data.toString("utf8")) as ConfigJson;
  return { config: image.config === undefined ? { ...config, config: plainConfig } : config, layers };
}

/** As commands are run in an environment that no image says anything of: by root, at home. */
const plainConfig = { Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: ["bash"], WorkingDir: "/root" };

/** The same environment gives the same layer. */
async function packagesImage(manifest: Manifest, directory: string, { signal, onBytes }: BaseOptions): Promise<BaseImage> {
  const { sizeBytes } = manifest.files[bootFiles[0]];
  const tree = join(places.environment(manifest.digest.slice("sha256:".length)), bootFiles[0]);
  const layer = await writeLayer(writeTar(readErofs(tree, signal)), join(directory, "tree"), { maxBytes: layerLimits.maxLayerTarBytes, signal, ...(onBytes && { onBytes: (bytes) => onBytes(bytes, sizeBytes) }) });
  return { config: { config: plainConfig, history: [{ created: manifest.createdAt, created_by: manifest.source }] }, layers: [layer] };
}

/** The documents of an environment that was made of packages. */
export async function packagesDocuments(manifest: Manifest, { config, layers }: BaseImage): Promise<ComposedImage> {
  const { history: _, ...rest } = config;
  return composeImage(rest, layers, { created: manifest.createdAt, createdBy: manifest.source });
}

export function notKept(name: string, digest: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `Of what ${name} is made of, ${digest} is not kept any more, or damaged.`, { hint: `pyro env pull ${name} --force` });
}
