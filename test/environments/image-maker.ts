/** Makes OCI images in layout directories, wrong ones too. */
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

export const mediaTypes = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
  gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
};

export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  [more: string]: unknown;
}

export function sha256(data: string | Buffer): string {
  return `sha256:${createHash("sha256").update(data).digest("hex")}`;
}

/** A layout directory that images are added to. */
export class Layout {
  readonly manifests: Descriptor[] = [];

  constructor(readonly path: string) {}

  async blob(data: string | Buffer, mediaType: string, more: Record<string, unknown> = {}): Promise<Descriptor> {
    const digest = sha256(data);
    await mkdir(join(this.path, "blobs/sha256"), { recursive: true });
    await writeFile(join(this.path, "blobs/sha256", digest.slice(7)), data);
    return { mediaType, digest, size: Buffer.byteLength(data), ...more };
  }

  /** An image of these tar archives, the lowest first. */
  async image(layers: readonly Buffer[], { tag, config = {}, compress = "plain" as "plain" | "gzip", platform = { os: "linux", architecture: "amd64" } }: { tag?: string; config?: Record<string, unknown>; compress?: "plain" | "gzip"; platform?: Record<string, string> } = {}): Promise<Descriptor> {
    const blobs = await Promise.all(layers.map((tar) => (compress === "gzip" ? this.blob(gzipSync(tar, { level: 1 }), mediaTypes.gzip) : this.blob(tar, mediaTypes.layer))));
    const configured = await this.blob(JSON.stringify({ ...platform, config, rootfs: { type: "layers", diff_ids: layers.map(sha256) } }), mediaTypes.config);
    const manifest = await this.blob(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.manifest, config: configured, layers: blobs }), mediaTypes.manifest);
    return this.name({ ...manifest, ...(tag === undefined && { platform }) }, tag);
  }

  name(descriptor: Descriptor, tag: string | undefined): Descriptor {
    const named = tag === undefined ? descriptor : { ...descriptor, annotations: { "org.opencontainers.image.ref.name": tag } };
    this.manifests.push(named);
    return named;
  }

  /** Writes what makes it a layout. */
  async finish(): Promise<string> {
    await writeFile(join(this.path, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    await writeFile(join(this.path, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: this.manifests }));
    return this.path;
  }
}
