/** Frozen VMs that others are forked from: which one fits, made when, found how, thrown away why. */
import { createHash } from "node:crypto";
import { mkdir, readdir, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { checkSignal, followFor } from "../base/deadline.js";
import { makeDirectory } from "../base/directory.js";
import { PyroError, toPyroError } from "../base/error.js";
import { takeLock, tryLock, type Lock } from "../base/lock.js";
import { log } from "../base/log.js";
import { cacheDirectory } from "../base/paths.js";
import { settings } from "../base/settings.js";
import { listEnvironments, type OpenEnvironment } from "../environments/index.js";
import { forking, type Accelerator, type Forking, type VmSpec } from "../vmm/index.js";
import { freezeWarm, warmUpVersion } from "./freeze.js";
import { isFresh, manifestName, readManifest, stampsOf, whyUnusable, type TemplateManifest } from "./template-manifest.js";

/** What a fork starts from. */
export interface Template {
  key: string;
  directory: string;
  /** A fork holds a shared lock on it: prune leaves the template alone meanwhile. */
  lockFile: string;
  /** Another one for a template that was made anew in the same place. */
  stamp: string;
}

export interface TemplateRequest {
  environment: OpenEnvironment;
  /** The machine, as it would be booted. */
  spec: VmSpec;
  accelerator: Accelerator;
  /** Called, and waited for, before anything is booted: keeps the environment from being pruned. */
  hold: () => Promise<void>;
}

export interface TemplateOptions {
  signal?: AbortSignal;
  onPhase?: (phase: { phase: "template" } | { phase: "waiting" }) => void;
}

/** A maker that died is noticed at once, so this is only ever waited out behind one that hangs. */
const waitMs = 120_000;
const discardWaitMs = 5_000;
/** No template is removed for its age alone, without being asked for, before it is so old. */
const leastAgeMs = 86_400_000;

const places = {
  templates: () => join(cacheDirectory(), "templates"),
  template: (key: string) => join(places.templates(), key),
  /** Where the one that is being made is; only the holder of the lock touches it. */
  making: () => join(places.templates(), "making"),
  /** Where one goes to be removed. */
  removed: () => join(places.templates(), "making-removed"),
  lock: () => join(places.templates(), "making.lock"),
};
const lockName = "lock";
const keyPattern = /^[0-9a-f]{64}$/;
/** What is there while nobody has the lock was left by whoever died. */
const unfinished: ReadonlyMap<string, string> = new Map([
  ["making", "it was never finished"],
  ["making-removed", "its removal was broken off"],
]);

/**
 * The template for this machine, made first if there is none. Undefined where there can't be one, for whatever reason: a VM is
 * booted then. Rejects with CANCELLED only.
 */
export async function findOrMakeTemplate(request: TemplateRequest, options: TemplateOptions = {}): Promise<Template | undefined> {
  try {
    if (forking === undefined || settings.templateMaxAgeSeconds() === 0) return undefined;
    const wanted = await describe(forking, request);
    return (await findTemplate(wanted.key)) ?? (await makeTemplate(forking, wanted, request, options)).template;
  } catch (error) {
    checkSignal(options.signal);
    log("no template", { environment: request.environment.name, why: toPyroError(error).message });
    return undefined;
  }
}

/** Makes the template for this machine unless there is a good one. Throws where it can't be made. */
export async function warmTemplate(request: TemplateRequest, options: TemplateOptions = {}): Promise<{ template: Template; made: boolean } | undefined> {
  if (forking === undefined || settings.templateMaxAgeSeconds() === 0) return undefined;
  const wanted = await describe(forking, request);
  const found = await findTemplate(wanted.key);
  return found === undefined ? makeTemplate(forking, wanted, request, options) : { template: found, made: false };
}

/** A fork of it failed: it is not to be used again. Forks that run go on; they have its files open. */
export async function discardTemplate({ key, directory, stamp }: Template, why: string): Promise<void> {
  log("a template did not work", { key, why });
  try {
    const lock = await takeTemplatesLock({}, discardWaitMs);
    try {
      // Somebody else may have found the same, and made a new one already.
      if (stampText((await readManifest(directory))?.files ?? {}) === stamp) await moveAway(directory);
    } finally {
      await lock.release();
    }
  } catch (error) {
    log("a template could not be removed", { key, why: toPyroError(error).message });
  }
}

export interface PruneTemplatesOptions {
  signal?: AbortSignal;
  /** Called once where another process makes one, which is waited for. */
  onWait?: () => void;
}

/** Removes templates that no VM can be forked from any more. Those that VMs are being forked from stay. Throws TIMEOUT, CANCELLED. */
export async function pruneTemplates(options: PruneTemplatesOptions = {}): Promise<{ removed: string[]; reclaimedBytes: number }> {
  const result = { removed: [] as string[], reclaimedBytes: 0 };
  const keys = (await readdir(places.templates()).catch(() => [])).filter((name) => keyPattern.test(name) || unfinished.has(name));
  if (keys.length === 0) return result;
  const lock = await takeTemplatesLock(options);
  try {
    const environments = new Set((await listEnvironments()).flatMap((each) => each.digest ?? []));
    const now = { host: await forking?.host().catch(() => undefined), environments, timeMs: Date.now(), maxAgeMs: settings.templateMaxAgeSeconds() * 1000 };
    for (const key of keys) {
      const directory = places.template(key);
      const why = unfinished.get(key) ?? whyUnusable(await readManifest(directory), key, now);
      if (why === undefined) continue;
      const bytes = await usage(directory);
      if (unfinished.has(key)) await rm(directory, { recursive: true, force: true });
      else if (!(await removeTemplate(directory, join(directory, lockName)))) continue;
      log("template removed", { key, why, bytes });
      result.removed.push(`template ${key.slice(0, 16)}: ${why}`);
      result.reclaimedBytes += bytes;
    }
    return result;
  } finally {
    await lock.release();
  }
}

interface Wanted {
  key: string;
  host: string;
}

/** Over all that matters: two requests with one key can be forked from one template. */
async function describe(forking: Forking, { environment, spec, accelerator }: TemplateRequest): Promise<Wanted> {
  const [host, machine] = await Promise.all([forking.host(), forking.machine(spec, accelerator)]);
  const parts = ["pyro template 1", warmUpVersion, host, machine, environment.digest, environment.kernelDigest, environment.initramfsDigest];
  return { key: createHash("sha256").update(JSON.stringify(parts)).digest("hex"), host };
}

/** One that is there, whole, as it was when it was made, and not too old. */
async function findTemplate(key: string): Promise<Template | undefined> {
  const directory = places.template(key);
  const [manifest, stamps] = await Promise.all([readManifest(directory), stampsOf(directory).catch(() => ({}))]);
  if (manifest === undefined || manifest.key !== key || !isFresh(manifest, Date.now(), settings.templateMaxAgeSeconds() * 1000)) return undefined;
  const stamp = stampText(stamps);
  if (stamp !== stampText(manifest.files)) {
    log("a template is damaged", { key });
    return undefined;
  }
  return { key, directory, lockFile: join(directory, lockName), stamp };
}

function stampText(stamps: Record<string, string>): string {
  return JSON.stringify(Object.entries(stamps).sort());
}

async function makeTemplate(forking: Forking, wanted: Wanted, request: TemplateRequest, options: TemplateOptions): Promise<{ template: Template; made: boolean }> {
  const { key } = wanted;
  const lock = await takeTemplatesLock({ ...(options.signal && { signal: options.signal }), onWait: () => options.onPhase?.({ phase: "waiting" }) });
  try {
    const found = await findTemplate(key); // somebody else may have made it while we waited
    if (found !== undefined) return { template: found, made: false };
    await checkSpace(request.spec);
    await request.hold();
    options.onPhase?.({ phase: "template" });
    const begin = Date.now();
    const directory = places.making();
    await rm(directory, { recursive: true, force: true }); // of a maker that died
    await mkdir(directory, { mode: 0o700 });
    try {
      await freezeWarm(forking, request, directory, options.signal);
      await writeFile(join(directory, lockName), "", { mode: 0o600 });
      const manifest: TemplateManifest = { schemaVersion: 1, key, host: wanted.host, environment: request.environment.digest, createdAtMs: Date.now(), files: await stampsOf(directory) };
      await writeFile(join(directory, manifestName), `${JSON.stringify(manifest, undefined, 2)}\n`, { mode: 0o600 });
      const place = places.template(key);
      if (await isThere(place)) await moveAway(place); // too old, or damaged; forks that run have it open
      await rename(directory, place);
      log("template made", { key, environment: request.environment.name, ms: Date.now() - begin });
      await removeOld().catch((error: unknown) => log("old templates could not be removed", { why: toPyroError(error).message }));
      return { template: { key, directory: place, lockFile: join(place, lockName), stamp: stampText(manifest.files) }, made: true };
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  } finally {
    await lock.release();
  }
}

/**
 * After each boot of the host, and for each QEMU and release, there are others, and few people prune: those of days ago would fill the disk. A day is the least, so that
 * whoever has a short age for a moment takes nobody else's. The caller holds the lock.
 */
async function removeOld(): Promise<void> {
  const maxAgeMs = Math.max(settings.templateMaxAgeSeconds() * 1000, leastAgeMs);
  for (const key of (await readdir(places.templates())).filter((name) => keyPattern.test(name))) {
    const directory = places.template(key);
    const manifest = await readManifest(directory);
    if (manifest === undefined || Date.now() - manifest.createdAtMs < maxAgeMs) continue;
    if (await removeTemplate(directory, join(directory, lockName))) log("template removed", { key, why: "it is too old" });
  }
}

/** Known beforehand, as it costs a boot to find out, and every VM would do it again. */
async function checkSpace({ memMib }: VmSpec): Promise<void> {
  const neededMib = 128 + Math.ceil(memMib / 32); // what a booted guest has touched: 102 MiB of 1 GiB, 304 MiB of 8 GiB
  const { bavail, bsize } = await statfs(places.templates());
  const freeMib = Math.floor((bavail * bsize) / 1048576);
  if (freeMib >= neededMib) return;
  throw new PyroError("DISK_FULL", `A template takes about ${neededMib} MiB in ${places.templates()}, and ${freeMib} MiB are free there.`, {
    hint: "Free some space (`pyro env prune` removes what is no longer used), or set XDG_CACHE_HOME to a directory on a larger disk.",
  });
}

/** One for all templates: on a host that makes two at once, neither is ready sooner. */
async function takeTemplatesLock({ signal, onWait }: PruneTemplatesOptions, ms = waitMs): Promise<Lock> {
  await makeDirectory(places.templates());
  const late = () => new PyroError("TIMEOUT", `Another process was still making a template after ${ms / 1000} s.`, { hint: "Try again when it is done. VMs are booted until then." });
  const patience = followFor(signal, ms, late);
  try {
    return await takeLock(places.lock(), { signal: patience.signal, ...(onWait && { onWait }) });
  } finally {
    patience.abort();
  }
}

/** False if a VM that was forked from it runs. */
async function removeTemplate(directory: string, lockFile: string): Promise<boolean> {
  if (!(await isThere(directory))) return false;
  if (await isThere(lockFile)) {
    const lock = await tryLock(lockFile);
    if (lock === undefined) return false;
    await lock.release();
  }
  await moveAway(directory);
  return true;
}

/** First its name, then what is in it: an interrupted removal never leaves half a template. The caller holds the lock that the name stands for. */
async function moveAway(directory: string): Promise<void> {
  const away = places.removed();
  await rm(away, { recursive: true, force: true });
  await rename(directory, away);
  await rm(away, { recursive: true, force: true });
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false);
}

/** Bytes of disk. */
async function usage(directory: string): Promise<number> {
  const names = await readdir(directory).catch(() => []);
  const sizes = await Promise.all(names.map((name) => stat(join(directory, name)).then((each) => each.blocks * 512, () => 0)));
  return sizes.reduce((sum, each) => sum + each, 0);
}
