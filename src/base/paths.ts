/** Where things are: what pyro keeps on the user's disk, and the files of its own package. */
import { fileURLToPath } from "node:url";
import { dirname, join } from "node:path";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { directoriesHint, PyroError } from "./error.js";
import { settings } from "./settings.js";

/** `$XDG_CACHE_HOME/pyro-mcp`: everything in it can be made again. */
export function cacheDirectory(): string {
  return join(settings.xdgCacheHome() ?? join(homeDirectory(), ".cache"), "pyro-mcp");
}

/** `$XDG_STATE_HOME/pyro-mcp`: what is true of VMs that outlive a process. */
export function stateDirectory(): string {
  return join(settings.xdgStateHome() ?? join(homeDirectory(), ".local", "state"), "pyro-mcp");
}

/**
 * The architecture's own names, in the one table that knows them: Node's name, Debian's, the kernel's and QEMU's.
 * A port to another machine begins here.
 */
export const architectures = {
  x64: { debian: "amd64", kernel: "x86_64", platform: "linux/amd64" },
} as const;

export type Architecture = (typeof architectures)[keyof typeof architectures];

/** This host's row of the table. Throws UNSUPPORTED elsewhere. */
export function hostArchitecture(): Architecture {
  const row = process.platform === "linux" ? (architectures as Record<string, Architecture>)[process.arch] : undefined;
  if (row === undefined) throw new PyroError("UNSUPPORTED", `pyro runs on ${Object.values(architectures).map((each) => each.platform).join(", ")}; this is ${process.platform}/${process.arch}.`);
  return row;
}

/** The guest's PID 1 (`pyro-guest`) or the host's keeper (`pyro-keeper`): static programs that the package brings with it. */
export function nativeProgram(name: "pyro-guest" | "pyro-keeper"): string {
  const path = join(packageRoot, "build", hostArchitecture().kernel, name);
  if (!existsSync(path)) {
    throw new PyroError("HOST_MISSING", `${name} is not built: there is no ${path}.`, { hint: "In a checkout, run `npm run build`; otherwise install the package again." });
  }
  return path;
}

/** The directory that holds package.json: above this file, whether it is in `src/base/`, in `dist/base/` or part of a bundle. */
export const packageRoot: string = findPackageRoot(dirname(fileURLToPath(import.meta.url)));

function findPackageRoot(directory: string): string {
  for (let at = directory; ; at = dirname(at)) {
    if (existsSync(join(at, "package.json")) || at === dirname(at)) return at;
  }
}

/** Throws DENIED where there is none. */
export function homeDirectory(): string {
  const value = settings.home() ?? homedir();
  if (value === "" || value === "/nonexistent") {
    throw new PyroError("DENIED", "There is no home directory to keep environments and VMs in.", { hint: directoriesHint });
  }
  return value;
}
