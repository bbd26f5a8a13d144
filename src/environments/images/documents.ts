/**
 * The documents of an image: index, manifest and configuration (OCI image specification 1.1, and Docker's image manifest version 2, schema 2,
 * which is the same but for the names of its types). Whoever wrote them is not trusted: all is checked and bounded here.
 */
import { PyroError } from "../../base/error.js";
import { harmlessLine } from "../../base/harmless.js";
import { digestPattern } from "../digest.js";
import { parseRecord, type Fields } from "../record.js";

export interface Descriptor {
  mediaType: string;
  /** `sha256:…` */
  digest: string;
  sizeBytes: number;
}

export interface IndexEntry extends Descriptor {
  platform?: { os: string; architecture: string; variant?: string };
  /** `org.opencontainers.image.ref.name`: a name, or its tag alone. */
  refName?: string;
  /** `io.containerd.image.name`: the whole name, which `docker save` writes beside the tag. */
  imageName?: string;
}

export type ImageDocument = { kind: "index"; manifests: IndexEntry[] } | { kind: "manifest"; config: Descriptor; layers: Descriptor[] };

/** How the image's commands are to be run. What the image does not say is absent. */
export interface ImageConfig {
  /** In the image's order. */
  env?: Readonly<Record<string, string>>;
  /** `name`, `uid`, `name:group` or `uid:gid`. */
  user?: string;
  workingDir?: string;
  entrypoint?: readonly string[];
  cmd?: readonly string[];
}

export interface ConfigDocument {
  os: string;
  architecture: string;
  /** Of the uncompressed layers, the lowest first. */
  diffIds: string[];
  config: ImageConfig;
  /** Labels that say what the image is. */
  title?: string;
  version?: string;
}

export const imageLimits = {
  /** Bytes of an index or a manifest. */
  maxManifestBytes: 4 << 20,
  maxConfigBytes: 8 << 20,
  maxManifests: 1000,
  maxLayers: 500,
  /** Bytes of one layer as it is stored. */
  maxLayerBytes: 2 ** 37,
  /** Bytes of all layers as they are stored. */
  maxImageBytes: 2 ** 38,
  maxConfigWords: 4096,
  /** Characters of one word of the configuration. */
  maxWordLength: 131_071,
} as const;

const indexTypes: ReadonlySet<string> = new Set(["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"]);
const manifestTypes: ReadonlySet<string> = new Set(["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"]);
const configTypes: ReadonlySet<string> = new Set(["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"]);
const layerType = /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)$/;

/** The types of documents that are asked for, the ones that are wanted most first. */
export const documentTypes: readonly string[] = [...indexTypes, ...manifestTypes];

/** `what` names it in errors. Throws ENVIRONMENT_INVALID, and UNSUPPORTED for what is no image of a kind that can be run. */
export function parseDocument(data: Uint8Array, what: string): ImageDocument {
  if (data.length > imageLimits.maxManifestBytes) throw over(what, "maxManifestBytes", data.length);
  const record = parseRecord(data, what);
  if (record.has("schemaVersion") && record.integer("schemaVersion", 1, 2) === 1) throw new PyroError("UNSUPPORTED", `${what} is of Docker's first format (schema 1), which says too little to be checked.`, { hint: "Push the image again with a newer Docker, or `skopeo copy` it to a layout directory with a newer format." });
  const type = record.has("mediaType") ? record.text("mediaType", 200) : undefined;
  // A document that is both would be one image to whoever signed it and another one to us.
  if (record.has("manifests") && (record.has("layers") || record.has("config"))) throw new PyroError("ENVIRONMENT_INVALID", `${what} is an index and a manifest at once.`);
  const isIndex = record.has("manifests");
  if (type !== undefined && !(isIndex ? indexTypes : manifestTypes).has(type)) {
    if (indexTypes.has(type) || manifestTypes.has(type)) throw new PyroError("ENVIRONMENT_INVALID", `${what} is no ${type}.`);
    throw new PyroError("UNSUPPORTED", `${what} is of the type ${type}, which is no image.`);
  }
  if (isIndex) return { kind: "index", manifests: record.list("manifests", imageLimits.maxManifests, "maxManifests").map((each) => indexEntry(each, what)) };
  const config = descriptor(record.object("config"), imageLimits.maxConfigBytes, "maxConfigBytes", what);
  if (!configTypes.has(config.mediaType)) throw new PyroError("UNSUPPORTED", `${what} is no image: its configuration is of the type ${config.mediaType}.`);
  const layers = record.list("layers", imageLimits.maxLayers, "maxLayers").map((each) => descriptor(each, imageLimits.maxLayerBytes, "maxLayerBytes", what));
  for (const { mediaType } of layers) if (!layerType.test(mediaType)) throw new PyroError("UNSUPPORTED", `${what} has a layer of the type ${mediaType}.`, { hint: "Layers can be tar archives, plain or compressed with gzip or zstd." });
  const bytes = layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (bytes > imageLimits.maxImageBytes) throw over(what, "maxImageBytes", bytes);
  return { kind: "manifest", config, layers };
}

/**
 * The entry of an index for `platform` (`linux/amd64`, with or without a variant): of those for this processor or an older one, the one for the newest; one that
 * asks for a newer processor only where no variant was named and there is no other. An index of one image that does not say what it is for has it; what is said
 * about images beside them (attestations) is for `unknown`. Throws NOT_FOUND with the platforms that there are.
 */
export function choosePlatform(manifests: readonly IndexEntry[], platform: string, what: string): IndexEntry {
  const [os, architecture = "", variant] = platform.split("/");
  const wanted = variantNumber(architecture, variant);
  const fitting = manifests.filter((each) => each.platform?.os === os && each.platform?.architecture === architecture);
  const numberOf = (each: IndexEntry) => variantNumber(architecture, each.platform?.variant);
  const usable = fitting.filter((each) => numberOf(each) <= wanted).reduce<IndexEntry | undefined>((best, each) => (best === undefined || numberOf(each) > numberOf(best) ? each : best), undefined);
  const images = manifests.filter((each) => each.platform?.os !== "unknown");
  const chosen = usable ?? (variant === undefined ? fitting[0] : undefined) ?? (images.length === 1 && images[0]!.platform === undefined ? images[0] : undefined);
  if (chosen !== undefined) return chosen;
  const all = manifests.flatMap((each) => (each.platform === undefined || each.platform.os === "unknown" ? [] : [[each.platform.os, each.platform.architecture, each.platform.variant].filter(Boolean).join("/")]));
  throw new PyroError("NOT_FOUND", `${what} has no image for ${platform}.`, { hint: all.length === 0 ? "It says of none what it is for." : `It has them for ${[...new Set(all)].slice(0, 20).join(", ")}.` });
}

/** `v3` as a number; without one it is the first, which for arm64 is v8. What is no number is newer than all. */
function variantNumber(architecture: string, variant: string | undefined): number {
  if (variant === undefined) return architecture === "arm64" ? 8 : 1;
  const digits = /^v([0-9]{1,2})$/.exec(variant)?.[1];
  return digits === undefined ? Infinity : Number(digits);
}

export function parseConfig(data: Uint8Array, what: string): ConfigDocument {
  if (data.length > imageLimits.maxConfigBytes) throw over(what, "maxConfigBytes", data.length);
  const record = parseRecord(data, what);
  const rootfs = record.object("rootfs");
  const diffIds = rootfs.strings("diff_ids", imageLimits.maxLayers, 71, "maxLayers");
  if (!diffIds.every((each) => digestPattern.test(each))) throw new PyroError("ENVIRONMENT_INVALID", `diff_ids of ${what} are not digests of SHA-256.`);
  const settings = record.isSet("config") ? record.object("config") : undefined;
  const words = (name: string) => (settings?.isSet(name) ? settings.strings(name, imageLimits.maxConfigWords, imageLimits.maxWordLength, "maxConfigWords") : undefined);
  const text = (name: string, length: number) => (settings?.isSet(name) ? settings.string(name, length) : undefined) || undefined;
  const env = words("Env");
  const user = text("User", 256);
  const workingDir = text("WorkingDir", 4096);
  const entrypoint = words("Entrypoint");
  const cmd = words("Cmd");
  const labels = settings?.isSet("Labels") ? settings.object("Labels") : undefined;
  const label = (name: string) => (labels?.isSet(`org.opencontainers.image.${name}`) ? harmlessLine(labels.string(`org.opencontainers.image.${name}`, imageLimits.maxConfigBytes), 200).trim() || undefined : undefined);
  const [title, version] = [label("title"), label("version")];
  return {
    os: record.isSet("os") ? record.text("os", 64) : "linux",
    architecture: record.isSet("architecture") ? record.text("architecture", 64) : "",
    diffIds,
    config: {
      ...(env !== undefined && { env: variables(env) }),
      ...(user !== undefined && { user }),
      ...(workingDir !== undefined && { workingDir }),
      ...(entrypoint !== undefined && entrypoint.length > 0 && { entrypoint }),
      ...(cmd !== undefined && cmd.length > 0 && { cmd }),
    },
    ...(title !== undefined && { title }),
    ...(version !== undefined && { version }),
  };
}

/** `NAME=VALUE` each; what has no name is nothing that a process could be given. */
function variables(env: readonly string[]): Record<string, string> {
  const found: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const each of env) {
    const equals = each.indexOf("=");
    if (equals > 0) found[each.slice(0, equals)] = each.slice(equals + 1);
  }
  return { ...found };
}

function indexEntry(fields: Fields, what: string): IndexEntry {
  const entry: IndexEntry = descriptor(fields, Number.MAX_SAFE_INTEGER, "maxManifestBytes", what);
  if (fields.isSet("platform")) {
    const platform = fields.object("platform");
    const [os, architecture] = [platform.isSet("os") ? platform.string("os", 64) : "", platform.isSet("architecture") ? platform.string("architecture", 64) : ""];
    const variant = platform.isSet("variant") ? platform.string("variant", 64) : "";
    entry.platform = { os: harmlessLine(os, 64), architecture: harmlessLine(architecture, 64), ...(variant !== "" && { variant: harmlessLine(variant, 64) }) };
  }
  const annotations = fields.isSet("annotations") ? fields.object("annotations") : undefined;
  const annotation = (name: string) => (annotations?.isSet(name) ? annotations.string(name, 1024) : undefined);
  const [refName, imageName] = [annotation("org.opencontainers.image.ref.name"), annotation("io.containerd.image.name")];
  return { ...entry, ...(refName !== undefined && { refName }), ...(imageName !== undefined && { imageName }) };
}

function descriptor(fields: Fields, maxBytes: number, limit: string, what: string): Descriptor {
  const digest = fields.text("digest", 200);
  if (!digestPattern.test(digest)) throw new PyroError(digest.startsWith("sha256:") ? "ENVIRONMENT_INVALID" : "UNSUPPORTED", `${what} names content by ${harmlessLine(digest, 100)}; only digests of SHA-256 are read.`);
  const sizeBytes = fields.integer("size", 0, Number.MAX_SAFE_INTEGER);
  if (sizeBytes > maxBytes) throw over(what, limit, sizeBytes);
  return { mediaType: fields.isSet("mediaType") ? fields.text("mediaType", 200) : "", digest, sizeBytes };
}

function over(what: string, limit: string, bytes: number): PyroError {
  return new PyroError("ENVIRONMENT_INVALID", `${what} is over the limit ${limit} (${imageLimits[limit as keyof typeof imageLimits]}): ${bytes} bytes.`);
}
