/** A root disk out of an image, wherever that is. */
import { createReadStream } from "node:fs";
import { stat, statfs } from "node:fs/promises";
import { join, posix } from "node:path";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { cacheDirectory, hostArchitecture } from "../../base/paths.js";
import { openRegular } from "../../base/regular-file.js";
import { settings } from "../../base/settings.js";
import { isKept, removeDamaged } from "../images/blobs.js";
import { openLayer } from "../images/layer-tar.js";
import { fetchLayers, resolveImage, type ImageSource, type ResolvedImage } from "../images/image.js";
import { printReference, type ImageReference } from "../images/reference.js";
import { mergeLayers } from "../layers.js";
import type { ManifestImage } from "../manifest.js";
import { makePrivate } from "../places.js";
import type { Reporter } from "../progress.js";
import { openImageArchive } from "./archive.js";
import type { RootDisk } from "./debian.js";
import { openBuilt } from "./built.js";
import { openImageFiles } from "./files.js";
import { openLayoutDirectory } from "./layout.js";

export interface ImageOptions {
  /** For what comes in and has to be kept until it is understood; whoever gave it removes it. */
  directory: string;
  /** `linux/amd64`, also with a variant; the host's when left out. */
  platform?: string | undefined;
  /** An archive, where the reference is to one that comes in. */
  input?: AsyncIterable<Uint8Array> | undefined;
  /** There is another source: this one is given up where it does not answer soon. */
  impatient?: boolean;
  reporter: Reporter;
  signal: AbortSignal | undefined;
}

/** Finds out what the image is made of; its layers are not fetched yet. `source.close` is the caller's. Throws NOT_FOUND, REGISTRY, UNSUPPORTED, DENIED, ENVIRONMENT_INVALID, CANCELLED. */
export async function findImage(reference: ImageReference, options: ImageOptions): Promise<ResolvedImage> {
  const platform = checkPlatform(options.platform);
  const source = await openSource(reference, options);
  try {
    options.reporter.phase("image", `reading what ${source.shown} is made of`);
    return await resolveImage(source, platform, options.signal);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Fetches the layers and writes them to `imagePath` as one disk. Throws what `findImage` throws, and DISK_FULL. */
export async function makeImageRoot(image: ResolvedImage, imagePath: string, options: Pick<ImageOptions, "reporter" | "signal">): Promise<RootDisk> {
  await checkSpace(image);
  try {
    return await mergeImage(image, imagePath, options);
  } catch (error) {
    // What was kept of the image may be what is wrong with it.
    if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID" || !(await removeDamaged(image.layers, options.signal))) throw error;
    return mergeImage(image, imagePath, options);
  }
}

async function mergeImage(image: ResolvedImage, imagePath: string, { reporter, signal }: Pick<ImageOptions, "reporter" | "signal">): Promise<RootDisk> {
  const { workingDir } = image.config.config;
  const { paths, settled } = fetchLayers(image, { signal, onBytes: (index, bytes) => reporter.layer(image.layers[index]!.digest, bytes, image.layers[index]!.sizeBytes) });
  reporter.phase("layers", `fetching ${image.layers.length} layer${image.layers.length === 1 ? "" : "s"}`);
  reporter.bytes(0, image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  const layers = image.layers.map((layer, index) => ({
    name: layer.digest,
    async *open() {
      yield* openLayer({ ...layer, path: await paths[index]! });
    },
  }));
  try {
    const clampMtime = settings.sourceDateEpoch();
    const { sizeBytes, digest } = await mergeLayers(layers, imagePath, {
      // As docker makes it where it is missing.
      ...(workingDir?.startsWith("/") && { directories: [posix.normalize(workingDir)] }),
      ...(clampMtime !== undefined && { clampMtime }),
      ...(signal && { signal }),
    });
    return { sizeBytes, digest, packages: [] };
  } finally {
    await settled; // the first failure has stopped all others
  }
}

/** What is kept of an image, besides its disk. */
export function manifestImage(reference: ImageReference, { manifestDigest, configDescriptor, layers, config }: ResolvedImage): ManifestImage {
  return { reference: printReference(reference), manifestDigest, configDigest: configDescriptor.digest, layers: layers.map(({ digest, sizeBytes }) => ({ digest, sizeBytes })), config: config.config };
}

async function openSource(reference: ImageReference, { directory, input, impatient = false, reporter, signal }: ImageOptions): Promise<ImageSource> {
  if (reference.kind === "registry") return (await import("./registry.js")).openRegistry(reference, { reporter, impatient });
  if (reference.kind === "built") return openBuilt(reference.digest);
  const { tag } = reference.kind === "file" ? reference : {};
  if (reference.kind === "file" && (await isDirectory(reference.path))) return openImageFiles(openLayoutDirectory(reference.path), tag);
  reporter.phase("image", "reading the archive");
  const shown = reference.kind === "file" ? reference.path : "the archive on standard input";
  const content = reference.kind === "file" ? createReadStream("", { fd: await openRegular(reference.path).catch(explain(reference.path)), highWaterMark: 1 << 19 }) : input;
  if (content === undefined) throw new PyroError("INVALID_ARGUMENT", "There is no archive: nothing comes in.", { hint: "pyro env pull NAME --source - < ARCHIVE" });
  return openImageFiles(await openImageArchive(content, shown, await makePrivate(join(directory, "archive")), { signal, onBytes: (bytes) => reporter.bytes(bytes) }), tag);
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(explain(path))).isDirectory();
}

function explain(path: string): (error: unknown) => never {
  return (error) => {
    const code = systemCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") throw new PyroError("NOT_FOUND", `There is no image at ${path}.`, { hint: "It is an OCI layout directory or a saved archive; with :NAME behind it, one of several images in it.", cause: error });
    if (code === "EACCES") throw new PyroError("DENIED", `${path} can't be read.`, { cause: error });
    throw toPyroError(error);
  };
}

function checkPlatform(platform: string | undefined): string {
  const own = hostArchitecture().platform;
  if (platform === undefined) return own;
  if (!/^[a-z0-9]{1,32}\/[a-z0-9_]{1,32}(?:\/v[0-9]{1,2})?$/.test(platform)) throw new PyroError("INVALID_ARGUMENT", `"${platform.slice(0, 100)}" is no platform; one is linux/amd64.`);
  if (platform !== own && !platform.startsWith(`${own}/`)) throw new PyroError("UNSUPPORTED", `VMs here run ${own}, and no image for ${platform}.`);
  return platform;
}

/** Of a compressed layer, bytes on the disk beside what is stored of it. */
const usualExpansion = 3;

async function checkSpace(image: ResolvedImage): Promise<void> {
  const { bavail, bsize } = await statfs(await makePrivate(cacheDirectory()));
  const each = await Promise.all(image.layers.map(async (layer) => layer.sizeBytes * ((/gzip|zstd/.test(layer.mediaType) ? usualExpansion : 1) + ((await isKept(layer)) ? 0 : 1))));
  const wanted = each.reduce((sum, bytes) => sum + bytes, 0);
  const mib = (bytes: number) => Math.ceil(bytes / 1048576);
  if (bavail * bsize < wanted) {
    throw new PyroError("DISK_FULL", `${image.source.shown} takes about ${mib(wanted)} MiB in ${cacheDirectory()}, and ${mib(bavail * bsize)} MiB are free there.`, {
      hint: "Free some space (`pyro env prune` removes what is no longer used), or set XDG_CACHE_HOME to a directory on a larger disk.",
    });
  }
}
