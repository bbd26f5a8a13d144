/** A root disk out of Debian's archive: mmdebstrap makes the system in a name space of its own and its tar stream becomes the image. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { findProgram, runChild } from "../../base/child.js";
import { PyroError } from "../../base/error.js";
import { harmlessLine } from "../../base/harmless.js";
import { hostArchitecture } from "../../base/paths.js";
import { settings } from "../../base/settings.js";
import { aptError, withoutPassword } from "../apt-error.js";
import { aptProxies, debianSources } from "../apt.js";
import type { CatalogEntry } from "../catalog.js";
import { checkKeyring, debiansKeyring } from "../debian/keyring.js";
import { maxStatusBytes, parseDpkgStatus, type InstalledPackage } from "../dpkg-status.js";
import { writeErofs } from "../erofs.js";
import { readWhole, runKept } from "../kept.js";
import type { Reporter } from "../progress.js";
import { userNamespaceHint } from "../subordinate-ids.js";
import { readTar, type TarEntry } from "../tar.js";

export interface RootDisk {
  sizeBytes: number;
  digest: string;
  packages: InstalledPackage[];
}

export interface DebianOptions {
  /** An empty directory for the system in the making; whoever gave it removes it. */
  directory: string;
  /** Where the image goes. */
  imagePath: string;
  /** Seconds since 1970; no time in the image is later. */
  dateSeconds: number;
  reporter: Reporter;
  signal: AbortSignal | undefined;
}

/** Throws REGISTRY, DISK_FULL, HOST_MISSING, DENIED, CANCELLED, TIMEOUT. */
export async function makeDebianRoot(entry: CatalogEntry, options: DebianOptions): Promise<RootDisk> {
  const { reporter, signal } = options;
  const command = [...(await privileges(signal)), await findProgram("mmdebstrap"), ...mmdebstrapArguments(entry)];
  const build = join(options.directory, "build");
  await mkdir(build, { mode: 0o700 });
  let packages: InstalledPackage[] = [];
  reporter.phase("packages", "fetching package lists");
  const { exit, result, failure } = await runKept(
    command[0]!,
    command.slice(1),
    {
      env: { ...(await aptProxies()), TMPDIR: build, SOURCE_DATE_EPOCH: `${options.dateSeconds}` },
      input: `${debianSources(entry.suite).join("\n")}\n`,
      timeoutMs: 3_600_000,
      onLine: (line) => showStep(line, reporter),
      ...(signal === undefined ? {} : { signal }),
    },
    (stdout) =>
      writeErofs(adapted(readTar(stdout), entry, (text) => (packages = parseDpkgStatus(text))), options.imagePath, {
        clampMtime: options.dateSeconds,
        onProgress: (bytes) => reporter.bytes(bytes),
        ...(signal === undefined ? {} : { signal }),
      }),
  );
  // If mmdebstrap failed, its archive broke off too: its own reason is the one to tell. If our end failed first, ours is.
  if (failure !== undefined && !isCutArchive(failure)) throw failure;
  if (exit.code !== 0) throw aptError(`The packages of ${entry.name} could not be put together`, exit.stderr);
  if (failure !== undefined) throw failure;
  if (result === undefined || packages.length === 0) throw new PyroError("ENVIRONMENT_INVALID", `What mmdebstrap made for ${entry.name} has no packages in it.`);
  return { sizeBytes: result.sizeBytes, digest: result.digest, packages };
}

/** Says with what environments are made here. Throws HOST_MISSING or DENIED, with the command that mends it. */
export async function checkBuilder(): Promise<string> {
  const command = await privileges(undefined);
  for (const program of ["apt-get", "dpkg-deb"]) await findProgram(program);
  await checkKeyring();
  return `${await findProgram("mmdebstrap")}${command.includes("--map-auto") ? " in a user name space" : " as root"}`;
}

/** As `checkBuilder`; where packages can't be put together, images still can. */
export async function describeBuilder(): Promise<string> {
  return checkBuilder().catch((error: unknown) => {
    if (!(error instanceof PyroError) || settings.catalogFrom() === "archive") throw error;
    return `images alone, nothing from packages: ${error.message}`;
  });
}

/** What gives mmdebstrap its own mounts and, for an ordinary user, its own root. Mounts in it never show up on the host. */
async function privileges(signal: AbortSignal | undefined): Promise<string[]> {
  const unshare = await findProgram("unshare");
  if (process.getuid?.() === 0) return [unshare, "--mount", "--"];
  await findProgram("newuidmap");
  const command = [unshare, "--map-root-user", "--map-auto", "--mount", "--"];
  const { code, stderr } = await runChild(command[0]!, [...command.slice(1), "true"], { timeoutMs: 10_000, ...(signal === undefined ? {} : { signal }) });
  if (code !== 0) throw new PyroError("DENIED", `This user can't have a user name space with subordinate ids: ${harmlessLine(stderr.trim(), 800)}`, { hint: userNamespaceHint() });
  return command;
}

function mmdebstrapArguments(entry: CatalogEntry): string[] {
  // Mode `unshare` also for root (as which it runs in either case, see above): a process id name space of its own, so that
  // nothing of it survives, and no mounts on the host.
  return [
    "--mode=unshare",
    "--variant=minbase",
    "--format=tar",
    `--architectures=${hostArchitecture().debian}`,
    `--include=${entry.packages.join(",")}`,
    "--aptopt=Acquire::Languages \"none\"",
    "--aptopt=Acquire::Retries \"3\"",
    "--aptopt=Acquire::http::Timeout \"30\"",
    "--aptopt=APT::Update::Error-Mode \"any\"",
    "--aptopt=APT::Sandbox::User \"root\"",
    // Manuals and translations nobody reads in a sandbox: 60 MB of the default environment.
    ...["man", "info", "groff", "lintian", "linda", "bug"].map((each) => `--dpkgopt=path-exclude=/usr/share/${each}/*`),
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/locale/*/LC_MESSAGES/*.mo",
    // What holds for the making of it is not for the guest's apt.
    "--customize-hook=printf 'Acquire::Languages \"none\";\\n' > \"$1/etc/apt/apt.conf.d/99mmdebstrap\"",
    // mmdebstrap leaves the host's own name and resolver in there.
    "--customize-hook=printf 'localhost\\n' > \"$1/etc/hostname\"; : > \"$1/etc/resolv.conf\"; : > \"$1/etc/machine-id\"; printf '127.0.0.1\\tlocalhost\\n::1\\tlocalhost ip6-localhost ip6-loopback\\n' > \"$1/etc/hosts\"",
    entry.suite,
    "-",
    "-",
  ];
}

const steps: readonly [RegExp, "packages" | "image", string][] = [
  [/running apt-get update/, "packages", "fetching package lists"],
  [/downloading packages/, "packages", "fetching packages"],
  [/extracting archives/, "packages", "unpacking essential packages"],
  [/installing essential packages/, "packages", "installing essential packages"],
  [/installing remaining packages/, "packages", "installing packages"],
  [/cleaning package lists/, "packages", "cleaning up"],
  [/creating tarball/, "image", "writing the disk image"],
];

function showStep(line: string, reporter: Reporter): void {
  const step = line.startsWith("I: ") ? steps.find(([pattern]) => pattern.test(line)) : undefined;
  if (step !== undefined) reporter.phase(step[1], step[2]);
}

/** Lets the entries through, reads dpkg's status file as it goes by, and takes passwords out of the list of mirrors. */
async function* adapted(entries: AsyncIterable<TarEntry>, { suite }: CatalogEntry, onStatus: (text: string) => void): AsyncGenerator<TarEntry> {
  for await (const entry of entries) {
    const path = entry.type === "file" ? entry.path.toString("latin1").replace(/^\.\//, "") : "";
    if (path === "var/lib/dpkg/status" && entry.sparse === undefined) {
      const content = await readWhole(entry.content(), maxStatusBytes, "dpkg's status file");
      onStatus(content.toString("utf8"));
      yield { ...entry, content: () => once(content) };
    } else if (path === "etc/apt/sources.list" && entry.sparse === undefined) {
      const content = Buffer.from(withoutPassword(`${debianSources(suite, debiansKeyring).join("\n")}\n`));
      yield { ...entry, size: content.length, content: () => once(content) };
    } else {
      yield entry;
    }
  }
}

async function* once(content: Uint8Array): AsyncGenerator<Uint8Array> {
  if (content.length > 0) yield content;
}

function isCutArchive(failure: unknown): boolean {
  return failure instanceof PyroError && failure.code === "ENVIRONMENT_INVALID";
}
