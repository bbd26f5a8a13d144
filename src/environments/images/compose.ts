/** The documents of an image that is made here (OCI image specification, config.md and manifest.md). */
import { open } from "node:fs/promises";
import { hostArchitecture } from "../../base/paths.js";
import { digestOf } from "../digest.js";

/** A layer as a manifest and a configuration together have it. */
export interface ComposedLayer {
  digest: string;
  sizeBytes: number;
  diffId: string;
  /** Where it is. */
  path: string;
}

export interface ComposedImage {
  /** The configuration's bytes and the manifest's. */
  config: Buffer;
  manifest: Buffer;
  manifestDigest: string;
}

/** A configuration, as somebody else may have written it. */
export type ConfigJson = Record<string, unknown> & { config?: Record<string, unknown>; history?: unknown };

export const manifestType = "application/vnd.oci.image.manifest.v1+json";

/** `step` says what made the last of `layers`, the lowest first. */
export async function composeImage(base: ConfigJson, layers: readonly ComposedLayer[], step: { created: string; createdBy: string }): Promise<ComposedImage> {
  const { created, createdBy } = step;
  // A history that tells of some layers only would be wrong about all.
  const history = Array.isArray(base.history) || layers.length === 1 ? [...((base.history as unknown[] | undefined) ?? []), { created, created_by: createdBy }] : undefined;
  const config = Buffer.from(JSON.stringify({ ...base, os: "linux", architecture: hostArchitecture().platform.split("/")[1], created, rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) }, history }));
  const described = await Promise.all(layers.map(async ({ digest, sizeBytes, path }) => ({ mediaType: await layerType(path), digest, size: sizeBytes })));
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: digestOf(config), size: config.length }, layers: described }));
  return { config, manifest, manifestDigest: digestOf(manifest) };
}

/** By its first bytes, as the manifest that it came with may have been wrong. */
async function layerType(path: string): Promise<string> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    const plain = "application/vnd.oci.image.layer.v1.tar";
    if (buffer[0] === 0x1f && buffer[1] === 0x8b) return `${plain}+gzip`;
    return buffer.readUInt32LE(0) === 0xfd2fb528 ? `${plain}+zstd` : plain;
  } finally {
    await file.close();
  }
}
