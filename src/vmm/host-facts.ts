/**
 * What was found out about this host and holds until it is booted again: the rate of its time stamp counter, whether KVM runs
 * guests, QEMU's version. Kept as small JSON files in the cache directory; a file that can't be read or does not fit its key
 * counts as not there, and one that can't be written is no failure.
 */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomic } from "../base/atomic.js";
import { makeDirectory } from "../base/directory.js";
import { log } from "../base/log.js";
import { cacheDirectory } from "../base/paths.js";
import { readRegular } from "../base/regular-file.js";

const maxFactBytes = 16 << 10;

/** The value kept as `name` under exactly this `key`; undefined if there is none. Check its shape: the file may hold anything. */
export async function readFact(name: string, key: string): Promise<unknown> {
  try {
    const kept = JSON.parse((await readRegular(factFile(name), maxFactBytes)).toString("utf8")) as { key?: unknown; value?: unknown } | null;
    return kept?.key === key ? kept.value : undefined;
  } catch {
    return undefined;
  }
}

export async function writeFact(name: string, key: string, value: unknown): Promise<void> {
  try {
    await makeDirectory(join(cacheDirectory(), "host"));
    await writeAtomic(factFile(name), `${JSON.stringify({ key, value })}\n`, 0o600);
  } catch (error) {
    log("a fact about the host could not be kept", { name, why: String(error) });
  }
}

/** Another one after every boot of the host. */
export async function hostBootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "latin1")).trim();
}

/** Milliseconds since the host's boot, time spent suspended included (proc(5), /proc/uptime). Nobody can set it. */
export async function hostUptimeMs(): Promise<number> {
  return Math.round(Number((await readFile("/proc/uptime", "latin1")).split(" ")[0]) * 1000);
}

/** Says whether a file is still the one it was, without reading it. */
export async function fileKey(path: string): Promise<string> {
  const { size, mtimeMs, ino } = await stat(path);
  return `${path}:${size}:${Math.round(mtimeMs)}:${ino}`;
}

function factFile(name: string): string {
  return join(cacheDirectory(), "host", `${name}.json`);
}
