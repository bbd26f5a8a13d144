/** The environments that have a name of their own: what each is, and what it is made from. The names are part of the public contract. */
export interface CatalogEntry {
  name: string;
  version: string;
  description: string;
  distribution: string;
  /** A Debian suite's code name. */
  suite: string;
  /** Debian packages beyond the essential ones and apt. */
  packages: readonly string[];
  /** About what making it takes on the disk while it is being made, MiB. */
  workMib: number;
}

const basePackages = ["ca-certificates"];
const agentPackages = [...basePackages, "curl", "git", "less", "patch", "procps", "unzip", "xz-utils"];

export function isInCatalog(name: string): boolean {
  return catalog.some((each) => each.name === name);
}

export const catalog: readonly CatalogEntry[] = [
  {
    name: "debian:12",
    version: "12",
    description: "Debian 12 with Git and what agents reach for first",
    distribution: "debian",
    suite: "bookworm",
    packages: agentPackages,
    workMib: 1024,
  },
  {
    name: "debian:12-base",
    version: "12",
    description: "Debian 12 with a minimal shell and core tools",
    distribution: "debian",
    suite: "bookworm",
    packages: basePackages,
    workMib: 800,
  },
  {
    name: "debian:12-build",
    version: "12",
    description: "Debian 12 with Git and a C and C++ compiler toolchain",
    distribution: "debian",
    suite: "bookworm",
    packages: [...agentPackages, "build-essential", "pkg-config"],
    workMib: 2048,
  },
];
