/** The environments that have a name of their own: what each is, and what it is made from. The names are part of the public contract. */
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { nearest } from "../base/nearest.js";

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

/** The entry of that name. Throws NOT_FOUND with the nearest names, and UNSUPPORTED for what names an image in a registry. */
export function findEntry(name: string): CatalogEntry {
  const entry = catalog.find((each) => each.name === name);
  if (entry !== undefined) return entry;
  const names = catalog.map((each) => each.name);
  const all = `Available are ${names.join(", ")}.`;
  const shown = harmlessLine(name, 200);
  if (/[/@]/.test(name)) throw new PyroError("UNSUPPORTED", `The environment "${shown}" names an image in a registry; those can't be pulled yet.`, { hint: all });
  const near = nearest(name, names);
  throw new PyroError("NOT_FOUND", `There is no environment "${shown}".`, { hint: near.length === 0 ? all : `Did you mean ${near.join(" or ")}? ${all}` });
}
