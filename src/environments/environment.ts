/** What the rest of pyro is told about environments. */
import { hostArchitecture } from "../base/paths.js";
import type { CatalogEntry } from "./catalog.js";
import { bootFiles, type Manifest } from "./manifest.js";

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
  /** Where it is on this disk. */
  directory?: string;
  /** Why it does not count as installed although something of it is there. */
  damage?: string;
}

export function environmentOf(entry: CatalogEntry, manifest: Manifest | undefined): Environment {
  const { name, version, description, distribution } = entry;
  const platform = hostArchitecture().platform;
  if (manifest === undefined) return { name, version, description, distribution, platform, installed: false };
  const sizeBytes = bootFiles.reduce((sum, each) => sum + manifest.files[each].sizeBytes, 0);
  return { name, version, description, distribution, platform, installed: true, sizeBytes, digest: manifest.digest, source: manifest.source };
}
