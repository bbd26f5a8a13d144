/** Release files of Debian's archive (https://wiki.debian.org/DebianRepository/Format): which files a suite has, by their digests. */
import { PyroError } from "../../base/error.js";

export interface Release {
  /** Seconds since 1970. */
  dateSeconds: number;
  byHash: boolean;
  /** By path below the suite's directory. */
  files: ReadonlyMap<string, { sizeBytes: number; sha256: string }>;
}

const maxFiles = 20_000;

/** `suite` is the code name that is asked for. Throws REGISTRY for another suite's, and for one that is over. */
export function parseRelease(text: string, suite: string, shown: string, now: number = Date.now()): Release {
  const field = (name: string) => new RegExp(`^${name}: ([\\x20-\\x7e]{1,200})$`, "m").exec(text)?.[1];
  const fail = (what: string) => new PyroError("REGISTRY", `${shown} ${what}.`, { hint: "Check PYRO_DEBIAN_MIRROR, and this host's clock." });
  if (field("Codename") !== suite) throw fail(`is of ${field("Codename") ?? "no suite"}, and ${suite} was asked for`);
  const date = Date.parse(field("Date") ?? "");
  if (!Number.isFinite(date)) throw fail("does not say when it was published");
  const until = field("Valid-Until");
  if (until !== undefined && !(Date.parse(until) > now)) throw fail(`is out of date since ${until}: an old state is shown as if it were the new one`);
  const files = new Map<string, { sizeBytes: number; sha256: string }>();
  const list = /^SHA256:\s*\n((?: .*\n?)+)/m.exec(text)?.[1] ?? "";
  for (const line of list.split("\n")) {
    const [, sha256, size, path] = /^ ([0-9a-f]{64}) +([0-9]{1,12}) +([A-Za-z0-9.+~_/-]{1,200})$/.exec(line) ?? [];
    if (path === undefined) continue;
    if (files.size === maxFiles) throw fail(`names more than ${maxFiles} files (maxFiles)`);
    files.set(path, { sizeBytes: Number(size), sha256: sha256! });
  }
  return { dateSeconds: Math.floor(date / 1000), byHash: field("Acquire-By-Hash") === "yes", files };
}
