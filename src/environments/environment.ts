/** What the rest of pyro is told about environments. */
import { hostArchitecture } from "../base/paths.js";
import { catalog } from "./catalog.js";
import { bootFiles, type Manifest, type ManifestImage } from "./manifest.js";

export interface Environment {
  name: string;
  version: string;
  description: string;
  distribution: string;
  /** `linux/amd64` … */
  platform: string;
  /** Whether its manifest and all its boot files are there and as they should be. */
  installed: boolean;
  /** All its boot files. */
  sizeBytes?: number;
  /** `sha256:…` */
  digest?: string;
  source?: string;
}

export interface EnvironmentDetails extends Environment {
  /** RFC 3339: when its root disk was made. */
  createdAt?: string;
  kernel?: { version: string; digest: string; source: string };
  files?: { name: string; sizeBytes: number; digest: string }[];
  packages?: { name: string; version: string }[];
  /** Of one that was an OCI image: which it is, and how it says that commands are run. */
  image?: EnvironmentImage;
  /** Where it is on this disk. */
  directory?: string;
  /** Why it does not count as installed although something of it is there. */
  damage?: string;
}

export interface EnvironmentImage {
  /** What is asked for when it is pulled again. */
  reference: string;
  /** `sha256:…` of its manifest for this platform. */
  manifestDigest: string;
  layers: { digest: string; sizeBytes: number }[];
  /** `NAME=VALUE` each. */
  env: string[];
  user?: string;
  workingDir?: string;
  entrypoint?: readonly string[];
  cmd?: readonly string[];
}

export function environmentImage({ reference, manifestDigest, layers, config }: ManifestImage): EnvironmentImage {
  const { env = {}, ...rest } = config ?? {};
  return { reference, manifestDigest, layers, env: Object.entries(env).map(([name, value]) => `${name}=${value}`), ...rest };
}

/** What `manifest` says of `name`; of one of the catalog its own words come first. */
export function environmentOf(name: string, manifest: Manifest | undefined, users?: { description: string }): Environment {
  const entry = catalog.find((each) => each.name === name);
  const { version, description, distribution } = entry ?? { version: "-", description: "An image", distribution: "oci", ...manifest, ...users };
  const platform = hostArchitecture().platform;
  if (manifest === undefined) return { name, version, description, distribution, platform, installed: false };
  const sizeBytes = bootFiles.reduce((sum, each) => sum + manifest.files[each].sizeBytes, 0);
  return { name, version, description, distribution, platform, installed: true, sizeBytes, digest: manifest.digest, source: manifest.source };
}
