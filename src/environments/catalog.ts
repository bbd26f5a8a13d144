/** The environments that have a name of their own: what each is, and what it is made from. The names are part of the public contract. */
import { settings } from "../base/settings.js";

export interface CatalogEntry {
  name: string;
  version: string;
  description: string;
  distribution: string;
  /** Official images that are this, the one that is tried first first. Debian's archive comes after them. */
  images: readonly string[];
  /** What has to be in /usr/bin or /bin of an image, or it is not this. */
  programs: readonly string[];
  /** A Debian suite's code name. */
  suite: string;
  /** Debian packages beyond the essential ones and apt. */
  packages: readonly string[];
  /** About what making it takes on the disk while it is being made, MiB. */
  workMib: number;
}

const basePackages = ["ca-certificates"];
const agentPackages = [...basePackages, "curl", "git", "less", "patch", "procps", "unzip", "xz-utils"];

/** Where `entry` is made from, as things are set: its images, then the archive. */
export function catalogSources(entry: CatalogEntry): { images: readonly string[]; archive: boolean } {
  const from = settings.catalogFrom();
  return { images: from === "archive" ? [] : entry.images, archive: from !== "images" };
}

export function isInCatalog(name: string): boolean {
  return catalog.some((each) => each.name === name);
}

export const catalog: readonly CatalogEntry[] = [
  {
    name: "debian:12",
    version: "12",
    description: "Debian 12 with Git and what agents reach for first",
    distribution: "debian",
    images: ["docker.io/library/buildpack-deps:bookworm-scm"],
    programs: ["bash", "curl", "git", "ps"],
    suite: "bookworm",
    packages: agentPackages,
    workMib: 1024,
  },
  {
    name: "debian:12-base",
    version: "12",
    description: "Debian 12 with a minimal shell and core tools",
    distribution: "debian",
    images: ["docker.io/library/debian:bookworm-slim"],
    programs: ["bash", "ls"],
    suite: "bookworm",
    packages: basePackages,
    workMib: 800,
  },
  {
    name: "debian:12-build",
    version: "12",
    description: "Debian 12 with Git and a C and C++ compiler toolchain",
    distribution: "debian",
    images: ["docker.io/library/buildpack-deps:bookworm"],
    programs: ["bash", "curl", "g++", "gcc", "git", "make", "patch", "pkg-config", "ps", "unzip", "xz"],
    suite: "bookworm",
    packages: [...agentPackages, "build-essential", "pkg-config"],
    workMib: 2048,
  },
];
