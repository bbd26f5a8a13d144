/** manifest.json of an installed environment: what it is, and the size and digest of every file that it needs to boot. */
import { digestOf, digestPattern } from "./digest.js";
import type { ImageConfig } from "./images/documents.js";
import { parseRecord, type Fields } from "./record.js";

export const bootFiles = ["root.erofs", "vmlinux", "initramfs"] as const;
export type BootFile = (typeof bootFiles)[number];

export interface Manifest {
  /** `sha256:…` of what the environment is made of; see `environmentDigest`. */
  digest: string;
  name: string;
  version: string;
  description: string;
  distribution: string;
  /** `linux/amd64` … */
  platform: string;
  /** Where the root file system came from, for people. */
  source: string;
  /** RFC 3339. */
  createdAt: string;
  kernel: ManifestKernel;
  /** Digest of the guest program in the initramfs. */
  guestDigest: string;
  files: Record<BootFile, { sizeBytes: number; digest: string }>;
  packages: { name: string; version: string }[];
  /** Of one that was an OCI image. */
  image?: ManifestImage;
}

export interface ManifestImage {
  /** What is asked for it when it is pulled again; `-` for an archive that came on standard input. */
  reference: string;
  manifestDigest: string;
  configDigest: string;
  /** As they are stored, the lowest first. */
  layers: { digest: string; sizeBytes: number }[];
  /** Absent where commands are run without regard to it. */
  config?: ImageConfig;
}

export interface ManifestKernel {
  /** The kernel's release, `6.1.0-56-cloud-amd64`. */
  version: string;
  /** Its directory's name in the kernel store. */
  id: string;
  /** Digest over vmlinux and the modules; see `kernelDigest` in kernel.ts. */
  digest: string;
  source: string;
}

export const manifestLimits = { bytes: 16 << 20, packages: 20_000, fileBytes: 2 ** 40, layers: 500, words: 4096, characters: 131_071 } as const;
const schemaVersion = 1;

/** Checks every field. Throws ENVIRONMENT_INVALID, naming what is wrong; `what` is the manifest's path. */
export function parseManifest(data: Uint8Array, what: string): Manifest {
  return readManifest(parseRecord(data, what));
}

export function readManifest(fields: Fields): Manifest {
  fields.integer("schema_version", schemaVersion, schemaVersion);
  const kernel = fields.object("kernel");
  const files = fields.object("files");
  const image = fields.isSet("image") ? readImage(fields.object("image")) : undefined;
  return {
    digest: fields.text("digest", 71, digestPattern),
    name: fields.text("name", 256),
    version: fields.text("version", 256),
    description: fields.text("description", 1024),
    distribution: fields.text("distribution", 64),
    platform: fields.text("platform", 64, /^linux\/[a-z0-9]+$/),
    source: fields.text("source", 4096),
    createdAt: fields.text("created_at", 32, /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/),
    kernel: {
      version: kernel.text("version", 128, /^[A-Za-z0-9][A-Za-z0-9.+~_-]*$/),
      id: kernel.text("id", 160, kernelIdPattern),
      digest: kernel.text("digest", 71, digestPattern),
      source: kernel.text("source", 4096),
    },
    guestDigest: fields.text("guest_digest", 71, digestPattern),
    files: Object.fromEntries(
      bootFiles.map((name) => {
        const file = files.object(name);
        return [name, { sizeBytes: file.integer("size_bytes", 1, manifestLimits.fileBytes), digest: file.text("digest", 71, digestPattern) }];
      }),
    ) as Manifest["files"],
    packages: fields.list("packages", manifestLimits.packages).map((each) => ({ name: each.text("name", 256), version: each.text("version", 256) })),
    ...(image !== undefined && { image }),
  };
}

function readImage(fields: Fields): ManifestImage {
  const config = fields.isSet("config") ? fields.object("config") : undefined;
  const { words, characters, layers } = manifestLimits;
  return {
    reference: fields.text("reference", 1024),
    manifestDigest: fields.text("manifest_digest", 71, digestPattern),
    configDigest: fields.text("config_digest", 71, digestPattern),
    layers: fields.list("layers", layers).map((each) => ({ digest: each.text("digest", 71, digestPattern), sizeBytes: each.integer("size_bytes", 0, manifestLimits.fileBytes) })),
    ...(config && {
      config: {
        ...(config.isSet("env") && { env: config.stringMap("env", words, characters) }),
        ...(config.isSet("user") && { user: config.string("user", characters) }),
        ...(config.isSet("working_dir") && { workingDir: config.string("working_dir", characters) }),
        ...(config.isSet("entrypoint") && { entrypoint: config.strings("entrypoint", words, characters) }),
        ...(config.isSet("cmd") && { cmd: config.strings("cmd", words, characters) }),
      },
    }),
  };
}

function printImage({ reference, manifestDigest, configDigest, layers, config }: ManifestImage) {
  const { env, user, workingDir, entrypoint, cmd } = config ?? {};
  return {
    reference,
    manifest_digest: manifestDigest,
    config_digest: configDigest,
    layers: layers.map(({ digest, sizeBytes }) => ({ digest, size_bytes: sizeBytes })),
    ...(config && { config: { ...(env && { env }), ...(user && { user }), ...(workingDir && { working_dir: workingDir }), ...(entrypoint && { entrypoint }), ...(cmd && { cmd }) } }),
  };
}

/** A name that is safe as a directory's: it can't be `..` or hidden. */
export const kernelIdPattern = /^[A-Za-z0-9][A-Za-z0-9.+~_-]*$/;

export function printManifest(manifest: Manifest): string {
  const record = {
    schema_version: schemaVersion,
    digest: manifest.digest,
    name: manifest.name,
    version: manifest.version,
    description: manifest.description,
    distribution: manifest.distribution,
    platform: manifest.platform,
    source: manifest.source,
    created_at: manifest.createdAt,
    kernel: { version: manifest.kernel.version, id: manifest.kernel.id, digest: manifest.kernel.digest, source: manifest.kernel.source },
    guest_digest: manifest.guestDigest,
    files: Object.fromEntries(bootFiles.map((name) => [name, { size_bytes: manifest.files[name].sizeBytes, digest: manifest.files[name].digest }])),
    packages: manifest.packages.map(({ name, version }) => ({ name, version })),
    ...(manifest.image && { image: printImage(manifest.image) }),
  };
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/**
 * An environment is its root disk and its kernel with modules, and how its image says that commands are run. The guest program is not part of it: a newer pyro brings a
 * newer one, and the environment stays what it was.
 */
export function environmentDigest(rootDigest: string, kernelDigest: string, imageDigest?: string): string {
  return digestOf(`pyro environment 1\nroot ${rootDigest}\nkernel ${kernelDigest}\n${imageDigest === undefined ? "" : `image ${imageDigest}\n`}`);
}

/** The part that an image has in its environment's digest: its manifest, so that the same files packed in another way are another image, with layers of its own. */
export function imageDigestOf(image: ManifestImage | undefined): string | undefined {
  return image?.config === undefined ? undefined : image.manifestDigest;
}
