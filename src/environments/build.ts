/** Environments built here: what a VM has changed becomes a layer over the one that it ran from, under a name of its own. */
import { rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { PyroError } from "../base/error.js";
import { takeLock } from "../base/lock.js";
import { settings } from "../base/settings.js";
import { baseImage } from "./base-image.js";
import { isInCatalog } from "./catalog.js";
import { digestOf } from "./digest.js";
import type { Environment } from "./environment.js";
import { hexOf, keepDocument } from "./images/blobs.js";
import { composeImage, type ComposedLayer } from "./images/compose.js";
import { writeLayer } from "./images/new-layer.js";
import { checkOwnName } from "./images/reference.js";
import { makePrivate, places } from "./places.js";
import { pullEnvironment } from "./pull.js";
import { startReporter, type PullProgress } from "./progress.js";
import { readManifestOf } from "./store.js";
import { makeTemporary } from "./temporary.js";
import { readUserCatalog } from "./user-catalog.js";

export interface LayerOptions {
  /** Bytes of the layer's tar stream, at most. */
  maxBytes: number;
  signal?: AbortSignal;
  onProgress?: (progress: PullProgress) => void;
}

/** A layer that has been taken and belongs to nothing yet. While it is held nothing is pruned. */
export interface HeldLayer {
  /** Makes it the top layer of `name`. Throws ENVIRONMENT_INVALID for a layer that is none, DISK_FULL, CANCELLED; then nothing of it stays. */
  install(): Promise<Environment>;
  /** Whatever became of it. */
  release(): Promise<void>;
}

export interface BuildTarget {
  name: string;
  /** The environment that was changed: `sha256:…` */
  baseDigest: string;
  /** What it is called. */
  baseName: string;
  /** For people. */
  createdBy: string;
}

/** Throws INVALID_ARGUMENT for a name that no environment of the user's can have. */
export async function checkBuildName(name: string): Promise<void> {
  checkOwnName(name);
  if (isInCatalog(name) || (await readUserCatalog()).some((each) => each.name === name)) throw new PyroError("INVALID_ARGUMENT", `${name} is a name of the catalog.`, { hint: "Give what is built a name of its own." });
}

/** Whether what an environment is made of is kept, so that something can be built on it: said before hours of work. Throws ENVIRONMENT_INVALID. */
export async function checkBuildBase(digest: string): Promise<void> {
  const manifest = await readManifestOf(hexOf({ digest }));
  if (manifest.image !== undefined) await baseImage(manifest, "");
}

/** Reads `content`, a tar stream of a guest's, to its end. Nothing of it is looked at before `install`. Throws ENVIRONMENT_INVALID beyond a limit, DISK_FULL, CANCELLED, and what `content` throws. */
export async function holdLayer(target: BuildTarget, content: AsyncIterable<Uint8Array>, options: LayerOptions): Promise<HeldLayer> {
  const { signal, onProgress, maxBytes } = options;
  await makePrivate(places.locks());
  const lock = await takeLock(places.storeLock(), { shared: true, ...(signal && { signal }) });
  try {
    const temporary = await makeTemporary();
    const release = async () => {
      await temporary.remove();
      await lock.release();
    };
    const reporter = startReporter(target.name, onProgress);
    try {
      reporter.phase("layers", "taking what was changed");
      const layer = await writeLayer(content, join(temporary.path, "layer"), { maxBytes, signal, onBytes: (bytes) => reporter.bytes(bytes) });
      return { install: () => installLayer(target, layer, temporary.path, options), release };
    } catch (error) {
      await temporary.remove();
      throw error;
    } finally {
      reporter.end();
    }
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function installLayer(target: BuildTarget, layer: ComposedLayer, directory: string, { signal, onProgress }: LayerOptions): Promise<Environment> {
  const { name, baseDigest, baseName, createdBy } = target;
  const manifest = await readManifestOf(hexOf({ digest: baseDigest }));
  const reporter = startReporter(name, onProgress);
  const kept: string[] = [];
  // One at a time: what two have in common must not go with the one that fails.
  const lock = await takeLock(places.buildLock(), { ...(signal && { signal }), onWait: () => reporter.phase("waiting", "another process is putting what it built in place") }).catch((error: unknown) => {
    reporter.end();
    throw error;
  });
  try {
    if (manifest.image === undefined) reporter.phase("layers", `making ${baseName} a layer`);
    const base = await baseImage(manifest, directory, { signal, onBytes: (done, total) => reporter.bytes(done, total) });
    const epoch = settings.sourceDateEpoch();
    const created = (epoch === undefined ? new Date() : new Date(epoch * 1000)).toISOString();
    const labels = { ...(base.config.config?.["Labels"] as Record<string, string> | null | undefined), "org.opencontainers.image.title": `Built from ${baseName}`.slice(0, 200) };
    const image = await composeImage({ ...base.config, config: { ...base.config.config, Labels: labels } }, [...base.layers, layer], { created, createdBy });
    reporter.end();
    for (const each of base.layers) if (each.path.startsWith(`${directory}/`)) await keep(each); // also others may build on it
    for (const each of [layer, image.config, image.manifest]) if (await keep(each)) kept.push(placeOf(each));
    return await pullEnvironment(name, { source: `built:${image.manifestDigest}`, ...(signal && { signal }), ...(onProgress && { onProgress }) });
  } catch (error) {
    // What nobody has a name for: prune would take it, too.
    for (const path of kept) await rm(path, { force: true });
    throw error;
  } finally {
    reporter.end();
    await lock.release();
  }
}

/** Puts a layer or a document where content is kept. False if it is there already; then it is somebody else's as well. */
async function keep(content: ComposedLayer | Buffer): Promise<boolean> {
  const place = placeOf(content);
  if ((await stat(place).catch(() => undefined))?.size === (Buffer.isBuffer(content) ? content.length : content.sizeBytes)) return false;
  if (Buffer.isBuffer(content)) {
    await keepDocument(content);
  } else {
    await makePrivate(places.blobs());
    await rename(content.path, place);
  }
  return true;
}

function placeOf(content: ComposedLayer | Buffer): string {
  return places.blob(hexOf({ digest: Buffer.isBuffer(content) ? digestOf(content) : content.digest }));
}
