/** Writes an environment as an OCI layout directory, for other programs: an image as it came, with the same digests; one that was made of packages as one layer. */
import { copyFile, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { randomBytes } from "node:crypto";
import { checkSignal } from "../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../base/error.js";
import { takeLock } from "../base/lock.js";
import { baseImage, notKept, packagesDocuments } from "./base-image.js";
import { digestOf, hashFile } from "./digest.js";
import { hexOf } from "./images/blobs.js";
import { manifestType } from "./images/compose.js";
import type { Manifest, ManifestImage } from "./manifest.js";
import { places } from "./places.js";
import { checkInstalled, digestOfName, readManifestOf } from "./store.js";
import { removeAtLast } from "./temporary.js";
import { findWanted } from "./wanted.js";

export interface ExportResult {
  /** Absolute. */
  directory: string;
  /** `sha256:…` of the image's manifest. */
  manifestDigest: string;
}

/**
 * Makes `directory`, which must not be there, with all above it being there. Throws NOT_FOUND, EXISTS, ENVIRONMENT_INVALID when what it was made of is not kept any more, or damaged,
 * DISK_FULL, DENIED, CANCELLED. What fails leaves nothing.
 */
export async function exportEnvironment(given: string, directory: string, options: { signal?: AbortSignal } = {}): Promise<ExportResult> {
  const { signal } = options;
  const { name } = await findWanted(given);
  const target = resolve(directory);
  // Held against prune, which would take the layers away in the middle.
  const lock = await takeLock(places.storeLock(), { shared: true, ...(signal && { signal }) });
  const making = join(dirname(target), `.pyro-export.${randomBytes(6).toString("hex")}`);
  const cleared = await removeAtLast(making).catch(() => undefined); // a cache that is full is no reason not to export
  try {
    const digest = await digestOfName(name);
    if (digest === undefined) throw new PyroError("NOT_FOUND", `The environment ${name} is not installed.`, { hint: `pyro env pull ${name}` });
    const manifest = await readManifestOf(digest).catch((error: unknown) => {
      const { code, message } = toPyroError(error);
      throw new PyroError(code, message, { hint: `pyro env pull ${name} --force`, cause: error });
    });
    if (await stat(target).then(() => true, () => false)) throw new PyroError("EXISTS", `${target} is already there.`);
    const blobs = join(making, "blobs/sha256");
    await mkdir(making).catch((error: unknown) => {
      throw noPlace(error, dirname(target));
    });
    await mkdir(join(making, "blobs"));
    await mkdir(blobs);
    const manifestDigest = await (manifest.image === undefined ? writePackages(manifest, blobs, signal) : copyImage(name, manifest.image, blobs, signal));
    const document = await readFile(join(blobs, hexOf({ digest: manifestDigest })), "utf8");
    const size = Buffer.byteLength(document);
    // An image may have come with Docker's type, and says so itself.
    const { mediaType = manifestType } = JSON.parse(document) as { mediaType?: string };
    const described = { mediaType, digest: manifestDigest, size, annotations: { "org.opencontainers.image.ref.name": "latest" } };
    await writeFile(join(making, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [described] }));
    await writeFile(join(making, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
    await rename(making, target);
    return { directory: target, manifestDigest };
  } catch (error) {
    await rm(making, { recursive: true, force: true }).catch(() => {}); // what was the matter is what is said
    throw toPyroError(error);
  } finally {
    await cleared?.release();
    await lock.release();
  }
}

function noPlace(error: unknown, above: string): PyroError {
  switch (systemCode(error)) {
    case "ENOENT":
    case "ENOTDIR":
      return new PyroError("NOT_FOUND", `There is no directory ${above}.`, { hint: "What is exported is a new directory in one that is there.", cause: error });
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new PyroError("DENIED", `Nothing can be made in ${above}.`, { hint: "Name a directory that you can write to.", cause: error });
    default:
      return toPyroError(error);
  }
}

/** Every content with its digest, which is compared. */
async function copyImage(name: string, image: ManifestImage, blobs: string, signal: AbortSignal | undefined): Promise<string> {
  for (const digest of new Set([image.manifestDigest, image.configDigest, ...image.layers.map((layer) => layer.digest)])) {
    checkSignal(signal);
    const copy = join(blobs, hexOf({ digest }));
    await copyFile(places.blob(hexOf({ digest })), copy).catch((error: unknown) => {
      throw systemCode(error) === "ENOENT" && signal?.aborted !== true ? notKept(name, digest) : error;
    });
    if ((await hashFile(copy, signal)).digest !== digest) throw notKept(name, digest);
  }
  return image.manifestDigest;
}

/** The disk is what there is, so its digest is looked at first. */
async function writePackages(manifest: Manifest, blobs: string, signal: AbortSignal | undefined): Promise<string> {
  await checkInstalled(hexOf(manifest), "full", signal);
  const base = await baseImage(manifest, blobs, { signal });
  const { config, manifest: document, manifestDigest } = await packagesDocuments(manifest, base);
  for (const layer of base.layers) await rename(layer.path, join(blobs, hexOf(layer)));
  for (const each of [config, document]) await writeFile(join(blobs, hexOf({ digest: digestOf(each) })), each);
  return manifestDigest;
}
