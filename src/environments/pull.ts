/** Makes an environment installed: fetches what is missing, mends what is damaged, keeps what is good. */
import { readFile, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { checkSignal } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { takeLock, type Lock } from "../base/lock.js";
import { log } from "../base/log.js";
import { cacheDirectory, hostArchitecture, nativeProgram } from "../base/paths.js";
import { settings } from "../base/settings.js";
import { withoutPassword } from "./apt-error.js";
import { openArchive, type Archive } from "./apt.js";
import { isInCatalog, type CatalogEntry } from "./catalog.js";
import { digestOf, hashFile } from "./digest.js";
import { environmentOf, type Environment } from "./environment.js";
import { readErofs } from "./erofs-read.js";
import { keepDocument } from "./images/blobs.js";
import type { ResolvedImage } from "./images/image.js";
import { printReference, type ImageReference } from "./images/reference.js";
import { buildInitramfs } from "./initramfs.js";
import { isWantedKernelSource } from "./kernel-source.js";
import { debianKernel, directoryKernel, findKernel, newestKernel, type Kernel } from "./kernel.js";
import { imageDigestOf, environmentDigest, type Manifest, type ManifestImage } from "./manifest.js";
import { makePrivate, places } from "./places.js";
import { startReporter, type PullProgress, type Reporter } from "./progress.js";
import { checkBuilder, makeDebianRoot, type RootDisk } from "./sources/debian.js";
import { findImage, makeImageRoot, manifestImage } from "./sources/image.js";
import { digestOfName, findInstalled, install, linkOrCopy, readManifestOf, type Installed } from "./store.js";
import { makeTemporary, sweepTemporary, type TemporaryDirectory } from "./temporary.js";
import { findWanted, printSource, wantedFrom, type Wanted, type WantedSource } from "./wanted.js";

export interface PullOptions {
  signal?: AbortSignal;
  /** Told at every step, and at least every second. */
  onProgress?: (progress: PullProgress) => void;
  /** Make it anew even if what is installed is whole. */
  force?: boolean;
  /** The image that the name is to stand for: a reference, a layout directory, an archive, or `-` for an archive on standard input. For a name of the catalog also `debian-archive`. */
  source?: string;
  /** The archive, where the source is `-`. */
  input?: AsyncIterable<Uint8Array>;
  /** `linux/amd64`, also with a variant (`linux/amd64/v3`): which image of several. */
  platform?: string;
}

/**
 * Pulls the environment `name`. What is installed is read and compared in full; if it is whole and current (of an image: what its reference stands for
 * now) it stays. Two pulls of one name wait for each other. Throws NOT_FOUND, INVALID_ARGUMENT, UNSUPPORTED, REGISTRY, DISK_FULL, HOST_MISSING, DENIED, CANCELLED.
 */
export async function pullEnvironment(given: string, options: PullOptions = {}): Promise<Environment> {
  const wanted = await (options.source === undefined ? findWanted(given) : wantedFrom(given, options.source));
  const { name } = wanted;
  const { signal } = options;
  checkSignal(signal);
  const reporter = startReporter(name, options.onProgress);
  const locks: Lock[] = [];
  try {
    await makePrivate(places.locks());
    const waiting = { ...(signal === undefined ? {} : { signal }), onWait: () => reporter.phase("waiting", "another process is at work on the environments") };
    // All locks are taken in one order, so that nobody waits in a circle: the store's, the name's, the kernels', and last the one for putting files in place.
    locks.push(await takeLock(places.storeLock(), { ...waiting, shared: true }));
    locks.push(await takeLock(places.nameLock(name), { ...waiting, onWait: () => reporter.phase("waiting", `another process is pulling ${name}`) }));
    await sweepTemporary();
    reporter.phase("verify", "checking what is installed");
    const present = options.force ? undefined : await findWhole(name, signal);
    // A name of the catalog stands for what it stood for until it is asked to be made again, or out of something else.
    const stays = wanted.entry !== undefined && options.source === undefined;
    const installed = stays && present !== undefined ? present : await pullFirst(wanted, present, options, reporter);
    return environmentOf(name, installed.manifest);
  } finally {
    reporter.end();
    for (const lock of locks.toReversed()) await lock.release();
  }
}

/** What is installed, if every byte of it is as it should be and it has the kernel and the guest program that are wanted now. */
async function findWhole(name: string, signal: AbortSignal | undefined): Promise<Installed | undefined> {
  try {
    const installed = await findInstalled(name, "full", signal);
    if (installed === undefined || !(await isWantedKernelSource(installed.manifest.kernel.source))) return undefined;
    const guest = await hashFile(nativeProgram("pyro-guest"), signal);
    return guest.digest === installed.manifest.guestDigest ? installed : undefined;
  } catch (error) {
    if (error instanceof PyroError && error.code === "ENVIRONMENT_INVALID") {
      log("environment is damaged", { name, reason: error.message });
      return undefined;
    }
    throw error;
  }
}

/** A source that can't be reached, or does not have the image for us, is told of, and the next one asked. */
async function pullFirst(wanted: Wanted, present: Installed | undefined, options: PullOptions, reporter: Reporter): Promise<Installed> {
  const sources = await inOrder(wanted, options);
  for (const [index, source] of sources.entries()) {
    const next = sources[index + 1];
    try {
      if ("debian" in source) return await makeFromDebian(source.debian, options.force ?? false, reporter, options.signal);
      return await pullImage(wanted, source.image, present, { ...options, impatient: next !== undefined }, reporter);
    } catch (error) {
      if (next === undefined || !(error instanceof PyroError) || !nextMayHave.has(error.code)) throw error;
      reporter.phase("image", `${error.message.replace(/\.?$/, ".")} Trying ${printSource(next)}`);
    }
  }
  throw new PyroError("INTERNAL", `${wanted.name} has no source.`);
}

/** What is damaged is mended out of what it was made from, if that can be had; the archive needs no network for most of it. */
async function inOrder({ name, entry, sources }: Wanted, { force }: PullOptions): Promise<readonly WantedSource[]> {
  if (entry === undefined || force) return sources;
  const digest = await digestOfName(name).catch(() => undefined);
  const before = digest === undefined ? undefined : await readManifestOf(digest).catch(() => undefined);
  if (before === undefined) return sources;
  const isBefore = (source: WantedSource) => ("image" in source ? printReference(source.image) === before.image?.reference : before.image === undefined);
  return [...sources.filter(isBefore), ...sources.filter((each) => !isBefore(each))];
}

const nextMayHave: ReadonlySet<string> = new Set(["REGISTRY", "NOT_FOUND", "DENIED"]);

/** What is installed stays if it is what the reference stands for; a digest stands for the same for ever, and nobody has to be asked. */
async function pullImage(wanted: Wanted, reference: ImageReference, present: Installed | undefined, options: PullOptions & { impatient: boolean }, reporter: Reporter): Promise<Installed> {
  const { name } = wanted;
  const { signal, impatient } = options;
  const before = present?.manifest.image;
  if (before !== undefined && (reference.kind === "registry" || reference.kind === "built") && reference.digest === before.manifestDigest) return present!;
  if (reference.kind === "input" && options.source === undefined) {
    if (present !== undefined) return present;
    throw new PyroError("NOT_FOUND", `The environment ${name} came from an archive on standard input, which is wanted again${options.force ? " to make it anew" : ", as what is kept of it is damaged"}.`, { hint: `pyro env pull ${name} --source - < ARCHIVE` });
  }
  const temporary = await makeTemporary();
  try {
    const image = await findImage(reference, { directory: temporary.path, platform: options.platform, input: options.input, impatient, reporter, signal });
    try {
      if (before !== undefined && before.manifestDigest === image.manifestDigest) return present!;
      return await makeFromImage(wanted, reference, image, temporary, { force: options.force ?? false, reporter, signal });
    } finally {
      await image.source.close();
    }
  } finally {
    await temporary.remove();
  }
}

async function makeFromImage({ name, entry }: Wanted, reference: ImageReference, image: ResolvedImage, temporary: TemporaryDirectory, { force, reporter, signal }: { force: boolean; reporter: Reporter; signal: AbortSignal | undefined }): Promise<Installed> {
  const kept = force ? undefined : await keptRoot(name, signal, image.manifestDigest);
  const archive = onceOpened(kernelSuite, temporary, reporter, signal);
  const kernel = await chooseKernel(kept?.kernel, archive, reporter, signal, force ? undefined : () => newestKernel(signal));
  const path = join(temporary.path, "root.erofs");
  const root = kept ?? { ...(await makeImageRoot(image, path, { reporter, signal })), source: image.source.shown, createdAt: new Date().toISOString() };
  if (entry !== undefined) await checkPrograms(kept?.path ?? path, entry, image.source.shown, signal);
  await keepDocument(image.manifest);
  const { title, version } = image.config;
  if (entry !== undefined) return putTogether({ ...entryFacts(entry), image: withoutConfig(manifestImage(reference, image)) }, root, kernel, temporary, reporter, signal);
  const facts = { name, version: version ?? (reference.kind === "registry" ? (reference.tag ?? "-") : "-"), description: title ?? `Image ${image.source.shown}`.slice(0, 200), distribution: "oci" };
  return putTogether({ ...facts, image: manifestImage(reference, image) }, root, kernel, temporary, reporter, signal);
}

/** Images bring no kernel: theirs is the newest of this suite, as the catalog's is. */
const kernelSuite = "bookworm";

async function makeFromDebian(entry: CatalogEntry, force: boolean, reporter: Reporter, signal: AbortSignal | undefined): Promise<Installed> {
  const temporary = await makeTemporary();
  try {
    const kept = force ? undefined : await keptRoot(entry.name, signal);
    if (kept === undefined) {
      // Said before anything is fetched.
      await checkBuilder();
      await checkSpace(entry.name, entry.workMib);
    }
    const archive = onceOpened(entry.suite, temporary, reporter, signal);
    const kernel = await chooseKernel(kept?.kernel, archive, reporter, signal);
    const root = kept ?? (await makeRoot(entry, await archive(), temporary, reporter, signal));
    return await putTogether(entryFacts(entry), root, kernel, temporary, reporter, signal);
  } finally {
    await temporary.remove();
  }
}

function entryFacts({ name, version, description, distribution }: CatalogEntry): Pick<Manifest, "name" | "version" | "description" | "distribution"> {
  return { name, version, description, distribution };
}

/** A name of the catalog is used in the same way, whatever it was made from. */
function withoutConfig(image: ManifestImage): ManifestImage {
  const { config: _, ...rest } = image;
  return rest;
}

/** Whoever answers for an image's name decides what is in it: what lacks what its description says is not used. */
async function checkPrograms(imagePath: string, { name, programs }: CatalogEntry, shown: string, signal: AbortSignal | undefined): Promise<void> {
  const missing = new Set(programs);
  for await (const { path } of readErofs(imagePath, signal)) {
    const program = /^\.\/(?:usr\/)?bin\/([^/]+)$/.exec(path.toString("latin1"))?.[1];
    if (program !== undefined) missing.delete(program);
  }
  if (missing.size > 0) throw new PyroError("NOT_FOUND", `${shown} is not ${name}: it has no ${[...missing].join(", ")}.`);
}

/** Root disk, kernel and guest program as an installed environment. */
async function putTogether(facts: Pick<Manifest, "name" | "version" | "description" | "distribution" | "image">, root: Root, kernel: Kernel, temporary: TemporaryDirectory, reporter: Reporter, signal: AbortSignal | undefined): Promise<Installed> {
  const guestProgram = await readFile(nativeProgram("pyro-guest"));
  reporter.phase("verify", "putting it together");
  if (root.path !== undefined) await linkOrCopy(root.path, join(temporary.path, "root.erofs"));
  await linkOrCopy(kernel.vmlinux.path, join(temporary.path, "vmlinux"));
  const initramfs = await packInitramfs(kernel, guestProgram);
  await writeFile(join(temporary.path, "initramfs"), initramfs, { mode: 0o600 });
  const manifest: Manifest = {
    digest: environmentDigest(root.digest, kernel.digest, imageDigestOf(facts.image)),
    ...facts,
    platform: hostArchitecture().platform,
    source: root.source,
    createdAt: root.createdAt,
    kernel: { version: kernel.version, id: kernel.id, digest: kernel.digest, source: kernel.source },
    guestDigest: digestOf(guestProgram),
    files: {
      "root.erofs": { sizeBytes: root.sizeBytes, digest: root.digest },
      vmlinux: { sizeBytes: kernel.vmlinux.sizeBytes, digest: kernel.vmlinux.digest },
      initramfs: { sizeBytes: initramfs.length, digest: digestOf(initramfs) },
    },
    packages: root.packages,
  };
  checkSignal(signal);
  const lock = await takeLock(places.installLock(), signal === undefined ? {} : { signal });
  try {
    return await install(facts.name, manifest, temporary.path, signal, facts.image !== undefined && !isInCatalog(facts.name) && facts.name !== facts.image.reference ? facts.image.reference : undefined);
  } finally {
    await lock.release();
  }
}

/** A root disk, made now or before. */
interface Root extends RootDisk {
  source: string;
  createdAt: string;
  /** Where it is, if it was made before. */
  path?: string;
}

/** The root disk of what is installed, if it is whole, though something else isn't; and the kernel it was installed with. */
async function keptRoot(name: string, signal: AbortSignal | undefined, manifestDigest?: string): Promise<(Root & { path: string; kernel: Manifest["kernel"] }) | undefined> {
  try {
    const digest = await digestOfName(name);
    if (digest === undefined) return undefined;
    const manifest = await readManifestOf(digest);
    if (manifest.image?.manifestDigest !== manifestDigest) return undefined; // of another image
    const path = join(places.environment(digest), "root.erofs");
    const expected = manifest.files["root.erofs"];
    const found = await hashFile(path, signal);
    if (found.digest !== expected.digest) return undefined;
    return { path, ...expected, packages: manifest.packages, source: manifest.source, createdAt: manifest.createdAt, kernel: manifest.kernel };
  } catch (error) {
    if (error instanceof PyroError && error.code === "CANCELLED") throw error;
    return undefined;
  }
}

async function chooseKernel(before: Manifest["kernel"] | undefined, archive: () => Promise<Archive>, reporter: Reporter, signal: AbortSignal | undefined, otherwise?: () => Promise<Kernel | undefined>): Promise<Kernel> {
  const directory = settings.kernelDirectory();
  reporter.phase("kernel", "checking the kernel");
  if (directory !== undefined) return directoryKernel(directory, reporter, signal);
  const kept = before !== undefined && (await isWantedKernelSource(before.source)) ? await findKernel(before.id, signal) : undefined;
  if (kept !== undefined && kept.digest === before?.digest) return kept;
  return (await otherwise?.()) ?? debianKernel(await archive(), reporter, signal);
}

async function makeRoot(entry: CatalogEntry, archive: Archive, temporary: TemporaryDirectory, reporter: Reporter, signal: AbortSignal | undefined): Promise<Root> {
  const path = join(temporary.path, "root.erofs");
  const disk = await makeDebianRoot(entry, { directory: temporary.path, imagePath: path, dateSeconds: settings.sourceDateEpoch() ?? archive.dateSeconds, reporter, signal });
  return { ...disk, source: `debian:${entry.suite} from ${withoutPassword(settings.debianMirror())}`, createdAt: new Date().toISOString() };
}

/** The archive, opened when it is first asked for: a repair may not need it. */
function onceOpened(suite: string, temporary: TemporaryDirectory, reporter: Reporter, signal: AbortSignal | undefined): () => Promise<Archive> {
  let archive: Promise<Archive> | undefined;
  return () => {
    if (archive === undefined) {
      reporter.phase("kernel", "fetching package lists");
      archive = checkSpace("a kernel", kernelWorkMib).then(() => makePrivate(join(temporary.path, "apt"))).then((directory) => openArchive(suite, directory, signal));
    }
    return archive;
  };
}

export async function packInitramfs(kernel: Kernel, guestProgram: Uint8Array): Promise<Buffer> {
  return buildInitramfs(guestProgram, await Promise.all(kernel.modules.map(async ({ name, path }) => ({ name, content: await readFile(path) }))));
}

/** Package lists, the kernel's package and what is taken out of it; apt without the room for that tries for ten minutes. */
const kernelWorkMib = 200;

async function checkSpace(what: string, workMib: number): Promise<void> {
  const { bavail, bsize } = await statfs(cacheDirectory());
  const freeMib = Math.floor((bavail * bsize) / 1048576);
  if (freeMib < workMib) {
    throw new PyroError("DISK_FULL", `Making ${what} takes about ${workMib} MiB in ${cacheDirectory()}, and ${freeMib} MiB are free there.`, {
      hint: "Free some space (`pyro env prune` removes what is no longer used), or set XDG_CACHE_HOME to a directory on a larger disk.",
    });
  }
}
