/** Writes an environment that was an image as an OCI layout directory, as it came: the same digests, for other programs. */
import { copyFile, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { randomBytes } from "node:crypto";
import { checkSignal } from "../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../base/error.js";
import { takeLock } from "../base/lock.js";
import { hashFile } from "./digest.js";
import { places } from "./places.js";
import { digestOfName, readManifestOf } from "./store.js";
import { findWanted } from "./wanted.js";

export interface ExportResult {
  /** Absolute. */
  directory: string;
  /** `sha256:…` of the image's manifest. */
  manifestDigest: string;
}

/**
 * Makes `directory`, which must not be there, with all above it being there. Throws NOT_FOUND, EXISTS, UNSUPPORTED for an environment that was no image,
 * ENVIRONMENT_INVALID when what it was made of is not kept any more, DISK_FULL, DENIED, CANCELLED. What fails leaves nothing.
 */
export async function exportEnvironment(given: string, directory: string, options: { signal?: AbortSignal } = {}): Promise<ExportResult> {
  const { signal } = options;
  const { name } = await findWanted(given);
  const target = resolve(directory);
  // Held against prune, which would take the layers away in the middle.
  const lock = await takeLock(places.storeLock(), { shared: true, ...(signal && { signal }) });
  const making = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}`);
  try {
    const digest = await digestOfName(name);
    if (digest === undefined) throw new PyroError("NOT_FOUND", `The environment ${name} is not installed.`, { hint: `pyro env pull ${name}` });
    const { image } = await readManifestOf(digest);
    if (image === undefined) throw new PyroError("UNSUPPORTED", `The environment ${name} was made here and is no image.`);
    if (await stat(target).then(() => true, () => false)) throw new PyroError("EXISTS", `${target} is already there.`);
    await mkdir(making);
    await mkdir(join(making, "blobs"));
    const blobs = join(making, "blobs/sha256");
    await mkdir(blobs);
    for (const each of new Set([image.manifestDigest, image.configDigest, ...image.layers.map((layer) => layer.digest)])) {
      checkSignal(signal);
      const hex = each.slice("sha256:".length);
      await copyFile(places.blob(hex), join(blobs, hex)).catch((error: unknown) => {
        throw systemCode(error) === "ENOENT" && signal?.aborted !== true ? gone(name, each) : error;
      });
      if ((await hashFile(join(blobs, hex), signal)).digest !== each) throw gone(name, each);
    }
    const { size } = await stat(join(blobs, image.manifestDigest.slice("sha256:".length)));
    const manifest = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: image.manifestDigest, size, annotations: { "org.opencontainers.image.ref.name": "latest" } };
    await writeFile(join(making, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
    await writeFile(join(making, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
    await rename(making, target);
    return { directory: target, manifestDigest: image.manifestDigest };
  } catch (error) {
    await rm(making, { recursive: true, force: true });
    throw toPyroError(error);
  } finally {
    await lock.release();
  }
}

function gone(name: string, digest: string): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `Of what ${name} is made of, ${digest} is not kept any more, or damaged.`, { hint: `pyro env pull ${name} --force` });
}
