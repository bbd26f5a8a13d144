/**
 * Debian's archive over HTTP, for hosts that have no apt of Debian's: the signature of each suite's InRelease, by it the digest of its list of packages, by
 * that the digest of a package; nothing is used before it was checked.
 */
import { createHash } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../../base/deadline.js";
import { PyroError, toPyroError } from "../../base/error.js";
import { hostArchitecture } from "../../base/paths.js";
import { settings } from "../../base/settings.js";
import { withoutPassword } from "../apt-error.js";
import type { Archive } from "../apt.js";
import { BrokenOff } from "../images/blobs.js";
import { runKept } from "../kept.js";
import { contentOf, drop, Http, readBody, type Answer } from "../registry/http.js";
import { readPackages, type PackageFacts } from "./packages.js";
import { parseRelease } from "./release.js";
import { signedText } from "./signature.js";
import { compareVersions } from "./version.js";

export const mirrorLimits = { maxReleaseBytes: 4 << 20, maxListBytes: 2 ** 28, maxTries: 3 } as const;

/** Of all packages only kernels are asked for. */
const wantedPrefix = "linux-image-";

interface Found extends PackageFacts {
  mirror: URL;
}

/** As `openArchive`. `directory` is an empty one; what is fetched goes there. Throws REGISTRY, DISK_FULL, HOST_MISSING, CANCELLED. */
export async function openMirror(suite: string, directory: string, signal: AbortSignal | undefined): Promise<Archive> {
  const http = await Http.open();
  try {
    const [main, security] = [address(settings.debianMirror()), address(settings.debianSecurityMirror())];
    const found: Found[] = [];
    let dateSeconds = 0;
    for (const [mirror, name] of [[main, suite], [main, `${suite}-updates`], [security, `${suite}-security`]] as const) {
      const release = await suiteOf(http, mirror, name, directory, signal);
      if (name === suite) dateSeconds = release.dateSeconds;
      for (const each of release.packages) found.push({ ...each, mirror });
    }
    return {
      dateSeconds,
      show: async (name) => newest(found.filter((each) => each.name === name), name),
      async download(name, version) {
        const wanted = found.find((each) => each.name === name && each.version === version);
        if (wanted === undefined) throw new PyroError("REGISTRY", `Debian's archive has no package ${name} of the version ${version}.`);
        const path = join(directory, "package.deb");
        const client = await Http.open();
        try {
          await fetchFile(client, below(wanted.mirror, wanted.path), wanted, path, signal);
        } finally {
          await client.close();
        }
        return path;
      },
    };
  } finally {
    await http.close();
  }
}

function newest(versions: readonly Found[], name: string): { version: string; depends: string } {
  const [first] = versions.toSorted((a, b) => compareVersions(b.version, a.version));
  if (first === undefined) throw new PyroError("REGISTRY", `Debian's archive says nothing about the package ${name}.`);
  return first;
}

async function suiteOf(http: Http, mirror: URL, suite: string, directory: string, signal: AbortSignal | undefined): Promise<{ dateSeconds: number; packages: PackageFacts[] }> {
  const from = below(mirror, `dists/${suite}/InRelease`);
  const shown = withoutPassword(from.href);
  const data = await retried(async () => readBody(await get(http, from, signal), mirrorLimits.maxReleaseBytes, signal), signal);
  const release = parseRelease(await signedText(data, shown, directory, signal), suite, shown);
  const name = `main/binary-${hostArchitecture().debian}/Packages.xz`;
  const list = release.files.get(name);
  if (list === undefined || list.sizeBytes > mirrorLimits.maxListBytes) throw new PyroError("REGISTRY", list === undefined ? `${shown} names no ${name}.` : `${shown} names a ${name} of ${list.sizeBytes} bytes, over the limit maxListBytes (${mirrorLimits.maxListBytes}).`);
  // By its digest it is there also while the mirror is about to get another one.
  const path = release.byHash ? name.replace("Packages.xz", `by-hash/SHA256/${list.sha256}`) : name;
  const file = join(directory, `${suite}.xz`);
  await fetchFile(http, below(mirror, `dists/${suite}/${path}`), list, file, signal);
  const { exit, result, failure } = await runKept("xz", ["--decompress", "--stdout", "--memlimit-decompress=256MiB", file], { timeoutMs: 300_000, ...(signal && { signal }) }, (stdout) => readPackages(stdout, wantedPrefix, `${shown}'s list of packages`));
  if (failure !== undefined) throw failure;
  if (exit.code !== 0) throw new PyroError("ENVIRONMENT_INVALID", `${shown}'s list of packages could not be unpacked.`);
  await rm(file);
  return { dateSeconds: release.dateSeconds, packages: result! };
}

async function fetchFile(http: Http, from: URL, { sizeBytes, sha256 }: { sizeBytes: number; sha256: string }, to: string, signal: AbortSignal | undefined): Promise<void> {
  const shown = withoutPassword(from.href);
  await retried(async () => {
    const answer = await get(http, from, signal);
    const hash = createHash("sha256");
    let bytes = 0;
    const file = await open(to, "w", 0o600);
    try {
      for await (const chunk of contentOf(answer, signal)) {
        bytes += chunk.length;
        if (bytes > sizeBytes) throw new PyroError("REGISTRY", `${shown} has more than the ${sizeBytes} bytes that Debian's archive says it has.`);
        hash.update(chunk);
        await file.appendFile(chunk).catch((error: unknown) => {
          throw toPyroError(error);
        });
      }
    } finally {
      await file.close();
    }
    if (bytes < sizeBytes) throw new BrokenOff(`${shown} ended after ${bytes} of ${sizeBytes} bytes.`);
    if (hash.digest("hex") !== sha256) throw new PyroError("REGISTRY", `${shown} is not what Debian's archive says it is: it was changed on its way, or is damaged on the mirror.`, { hint });
  }, signal);
}

const hint = "PYRO_DEBIAN_MIRROR and PYRO_DEBIAN_SECURITY_MIRROR name other mirrors.";

async function get(http: Http, from: URL, signal: AbortSignal | undefined): Promise<Answer> {
  const bare = new URL(from);
  bare.username = bare.password = "";
  const authorization = from.username === "" ? undefined : `Basic ${Buffer.from(`${decoded(from.username)}:${decoded(from.password)}`).toString("base64")}`;
  const answer = await http.ask(bare, { authorization, headers: { "accept-encoding": "identity" }, signal });
  if (answer.status === 200) return answer;
  await drop(answer.body);
  const message = `${withoutPassword(from.href)} can't be had: the mirror answered ${answer.status}.`;
  throw answer.status >= 500 || answer.status === 429 ? new BrokenOff(message, { hint }) : new PyroError("REGISTRY", message, { hint });
}

/** As it is written where a percent sign in it begins nothing. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function retried<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof BrokenOff) || tries === mirrorLimits.maxTries) throw error;
      await sleep(error.waitMs ?? 500 * 2 ** tries, signal);
    }
  }
}

function address(mirror: string): URL {
  const url = URL.canParse(mirror) ? new URL(mirror) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw new PyroError("INVALID_ARGUMENT", `The mirror ${withoutPassword(mirror).slice(0, 200)} is no HTTP address, and this host has no apt that could read it.`);
  return url;
}

function below(mirror: URL, path: string): URL {
  const url = new URL(mirror);
  url.pathname = `${url.pathname.replace(/\/+$/, "")}/${path}`;
  return url;
}
