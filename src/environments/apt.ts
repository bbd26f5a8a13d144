/**
 * Debian's archive through apt, as any user and without touching the host's own apt: sources, lists and cache of our own in a
 * directory that is thrown away. apt checks the signature of the lists, and the packages against the lists.
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findProgram, runChild, type RunOutput } from "../base/child.js";
import { PyroError } from "../base/error.js";
import { hostArchitecture } from "../base/paths.js";
import { settings } from "../base/settings.js";
import { aptError } from "./apt-error.js";
import { checkKeyring, keyring } from "./debian/keyring.js";
import { drain, runKept } from "./kept.js";
import { makePrivate } from "./places.js";

/** The lines of a sources.list for `suite` with its updates and security updates; in guests the keys are where Debian has them. */
export function debianSources(suite: string, keys: string = keyring()): string[] {
  const options = `[signed-by=${keys}]`;
  return [
    `deb ${options} ${settings.debianMirror()} ${suite} main`,
    `deb ${options} ${settings.debianMirror()} ${suite}-updates main`,
    `deb ${options} ${settings.debianSecurityMirror()} ${suite}-security main`,
  ];
}

export interface Archive {
  /** When the suite's state was published, seconds since 1970: the same archive gives the same number. */
  dateSeconds: number;
  /** The package's newest version, and what it depends on as the archive says it. NOT_FOUND if there is none. */
  show(name: string): Promise<{ version: string; depends: string }>;
  /** Fetches `name` at `version` and returns the path of the .deb. */
  download(name: string, version: string): Promise<string>;
}

/** Fetches the lists of `suite` into `directory`, an empty one; without apt over HTTP. Throws REGISTRY, DISK_FULL, HOST_MISSING. */
export async function openArchive(suite: string, directory: string, signal: AbortSignal | undefined): Promise<Archive> {
  if (!(await hasApt())) return (await import("./debian/mirror.js")).openMirror(suite, directory, signal);
  await checkKeyring();
  const configuration = await configure(suite, directory);
  await runApt("apt-get", ["update"], configuration, signal, "Debian's package lists could not be fetched");
  const archive: Archive = {
    dateSeconds: await releaseDate(join(directory, "state/lists"), suite),
    async show(name) {
      const { stdout } = await checked(await runChild("apt-cache", ["show", "--no-all-versions", name], { env: { APT_CONFIG: configuration }, timeoutMs: 60_000, ...(signal === undefined ? {} : { signal }) }), `Debian's archive has no package ${name}`);
      const text = stdout.toString("utf8");
      const version = /^Version: (\S{1,200})$/m.exec(text)?.[1];
      if (version === undefined) throw new PyroError("REGISTRY", `Debian's archive says nothing about the package ${name}.`);
      return { version, depends: /^Depends: (.*)$/m.exec(text)?.[1] ?? "" };
    },
    async download(name, version) {
      const target = await makePrivate(join(directory, "packages"));
      await runApt("apt-get", ["download", `${name}=${version}`], configuration, signal, `The package ${name} could not be fetched`, target);
      const file = (await readdir(target)).find((each) => each.startsWith(`${name}_`) && each.endsWith(".deb"));
      if (file === undefined) throw new PyroError("REGISTRY", `apt-get fetched the package ${name} and left no file.`);
      return join(target, file);
    },
  };
  return archive;
}

async function hasApt(): Promise<boolean> {
  return Promise.all([findProgram("apt-get"), findProgram("apt-cache")]).then(() => true, () => false);
}

async function configure(suite: string, directory: string): Promise<string> {
  if (/["\\{};\n]/.test(directory)) throw new PyroError("UNSUPPORTED", `apt can't work below ${directory}: its configuration has no way to write that path.`, { hint: "Set XDG_CACHE_HOME to a path without quotes, braces and semicolons." });
  for (const each of ["state/lists/partial", "cache/archives/partial", "etc/parts"]) await makePrivate(join(directory, each));
  await writeFile(join(directory, "state/status"), "");
  await writeFile(join(directory, "etc/sources.list"), `${debianSources(suite).join("\n")}\n`);
  const file = join(directory, "etc/apt.conf");
  const lines = [
    // apt reads this file before all others, and by this never comes to the host's own apt.conf.d: its hooks are not for us.
    ["Dir::State", join(directory, "state")],
    ["Dir::State::Lists", join(directory, "state/lists")],
    ["Dir::State::status", join(directory, "state/status")],
    ["Dir::Cache", join(directory, "cache")],
    ["Dir::Cache::Archives", join(directory, "cache/archives")],
    ["Dir::Etc::SourceList", join(directory, "etc/sources.list")],
    ["Dir::Etc::SourceParts", join(directory, "etc/parts")],
    ["Dir::Etc::Parts", join(directory, "etc/parts")],
    ["Dir::Etc::Main", join(directory, "etc/none")],
    ["Dir::Etc::Preferences", join(directory, "etc/preferences")],
    ["Dir::Etc::PreferencesParts", join(directory, "etc/parts")],
    ["Dir::Log", directory],
    ["APT::Architecture", hostArchitecture().debian],
    ["APT::Architectures", hostArchitecture().debian],
    ["APT::Sandbox::User", "root"], // no change of user: `_apt` can't get into a directory of mode 0700
    ["APT::Update::Error-Mode", "any"], // otherwise a list that could not be fetched is only a warning
    ["APT::Get::AllowUnauthenticated", "false"],
    ["Acquire::AllowInsecureRepositories", "false"],
    ["Acquire::Languages", "none"],
    ["Acquire::Retries", "3"],
    ["Acquire::http::Timeout", "30"],
    ["Acquire::https::Timeout", "30"],
  ];
  await writeFile(file, lines.map(([key, value]) => `${key} "${value}";\n`).join(""));
  return file;
}

/** The user's proxies, and those that the host's apt has been told to use where the user has set none, as environment variables. */
export async function aptProxies(): Promise<Record<string, string>> {
  const { stdout } = await runChild("apt-config", ["shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"], { timeoutMs: 30_000 });
  const found = [...stdout.toString("utf8").matchAll(/^(https?_proxy)='(https?:\/\/[^'\s]{1,1000})'$/gm)].map(([, name, value]) => [name!, value!] as const);
  return { ...Object.fromEntries(found), ...settings.proxies() };
}

async function runApt(program: string, args: readonly string[], configuration: string, signal: AbortSignal | undefined, what: string, cwd?: string): Promise<void> {
  const { exit } = await runKept(program, ["-q", ...args], { env: { ...(await aptProxies()), APT_CONFIG: configuration, DEBIAN_FRONTEND: "noninteractive" }, timeoutMs: 600_000, ...(cwd === undefined ? {} : { cwd }), ...(signal === undefined ? {} : { signal }) }, drain);
  if (exit.code !== 0) throw aptError(what, exit.stderr);
}

async function checked(output: RunOutput, what: string): Promise<RunOutput> {
  if (output.code !== 0) throw aptError(what, output.stderr);
  return output;
}

/** The Date of the suite's signed Release file, which apt has checked and kept. */
async function releaseDate(lists: string, suite: string): Promise<number> {
  const file = (await readdir(lists)).find((each) => each.endsWith(`_dists_${suite}_InRelease`) || each.endsWith(`_dists_${suite}_Release`));
  const text = file === undefined ? "" : await readFile(join(lists, file), "utf8");
  const date = Date.parse(/^Date: ([\x20-\x7e]{1,64})$/m.exec(text)?.[1] ?? "");
  if (!Number.isFinite(date)) throw new PyroError("REGISTRY", `Debian's archive does not say when ${suite} was published.`);
  return Math.floor(date / 1000);
}
