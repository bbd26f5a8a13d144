/** What is known of a template without starting anything: when and of what it was made, and whether its files are as they were then. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { readRegular } from "../base/regular-file.js";

export const manifestName = "manifest.json";
const maxManifestBytes = 64 << 10;
const notContent: ReadonlySet<string> = new Set([manifestName, "lock", "socket"]);

export interface TemplateManifest {
  schemaVersion: 1;
  key: string;
  /** What the monitor said of the host: templates of another one can't be used. */
  host: string;
  /** Digest of the environment it was booted from. */
  environment: string;
  createdAtMs: number;
  /** Each file's stamp: while it stays the same the file has the same content. Reading 100 MB to check a digest would cost more than the fork. */
  files: Record<string, string>;
}

/** Undefined where there is none that can be read. */
export async function readManifest(directory: string): Promise<TemplateManifest | undefined> {
  try {
    const value: unknown = JSON.parse((await readRegular(join(directory, manifestName), maxManifestBytes)).toString("utf8"));
    return isManifest(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The stamp of every file in `directory` that is part of the template, by name. */
export async function stampsOf(directory: string): Promise<Record<string, string>> {
  const names = (await readdir(directory)).filter((name) => !notContent.has(name)).sort();
  const stamps = await Promise.all(names.map(async (name) => {
    const { ino, size, mtimeNs, ctimeNs } = await stat(join(directory, name), { bigint: true });
    return [name, `${ino} ${size} ${mtimeNs} ${ctimeNs}`];
  }));
  return Object.fromEntries(stamps) as Record<string, string>;
}

/** A template from the future was made before the clock was set back: nobody knows how old it is. */
export function isFresh({ createdAtMs }: TemplateManifest, nowMs: number, maxAgeMs: number): boolean {
  return createdAtMs <= nowMs && nowMs - createdAtMs < maxAgeMs;
}

/** Why nothing can be forked from a template any more; undefined if it can. `host` is undefined where there is no monitor at all. */
export function whyUnusable(
  manifest: TemplateManifest | undefined,
  key: string,
  now: { host: string | undefined; environments: ReadonlySet<string>; timeMs: number; maxAgeMs: number },
): string | undefined {
  if (manifest === undefined || manifest.key !== key) return "it is damaged";
  if (manifest.host !== now.host) return "its QEMU is gone or the host was booted anew";
  if (!now.environments.has(manifest.environment)) return "its environment is gone";
  if (!isFresh(manifest, now.timeMs, now.maxAgeMs)) return "it is too old";
  return undefined;
}

function isManifest(value: unknown): value is TemplateManifest {
  if (typeof value !== "object" || value === null) return false;
  const { schemaVersion, key, host, environment, createdAtMs, files } = value as Record<string, unknown>;
  return (
    schemaVersion === 1 &&
    [key, host, environment].every((each) => typeof each === "string") &&
    typeof createdAtMs === "number" &&
    typeof files === "object" &&
    files !== null &&
    Object.values(files).every((each) => typeof each === "string")
  );
}
