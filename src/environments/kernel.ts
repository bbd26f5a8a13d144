/** The kernel that guests boot: Debian's package, or a directory of the user's, as an uncompressed vmlinux and ordered modules in the kernel store. */
import { copyFile, mkdir, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory, syncFile } from "../base/atomic.js";
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { takeLock } from "../base/lock.js";
import { hostArchitecture } from "../base/paths.js";
import { openRegular, readRegular } from "../base/regular-file.js";
import { aptError } from "./apt-error.js";
import type { Archive } from "./apt.js";
import { findPayload, maxVmlinuxBytes, maxVmlinuzBytes } from "./bzimage.js";
import { tarOfPackage } from "./debian/deb-file.js";
import { digestOf, digestPattern, hashFile } from "./digest.js";
import { readWhole, runKept } from "./kept.js";
import { kernelIdPattern } from "./manifest.js";
import { moduleLimits, moduleName, orderModules, readModuleInfo, type ModuleInfo } from "./modules.js";
import { makePrivate, places } from "./places.js";
import type { Reporter } from "./progress.js";
import { directoryError, directorySource, isWantedKernelSource } from "./kernel-source.js";
import { readRecord } from "./record.js";
import { readTar, type TarEntry } from "./tar.js";
import { makeTemporary, namesIn, removeTree } from "./temporary.js";

/** What a guest needs to find its disks, its ports and its card, and to give memory back; what these depend on comes with them. */
export const wantedModules = ["virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "erofs", "overlay", "virtio_balloon"] as const;

/** A kernel in the store; all of it has been checked. */
export interface Kernel {
  id: string;
  directory: string;
  /** The kernel's release. */
  version: string;
  source: string;
  /** Over vmlinux and the modules in their order. */
  digest: string;
  vmlinux: { path: string; sizeBytes: number; digest: string };
  modules: { name: string; path: string; sizeBytes: number; digest: string }[];
}

/**
 * Debian's newest cloud kernel in the store: fetched if it isn't there or is damaged. Throws REGISTRY, ENVIRONMENT_INVALID,
 * DISK_FULL, HOST_MISSING.
 */
export async function debianKernel(archive: Archive, reporter: Reporter, signal: AbortSignal | undefined): Promise<Kernel> {
  const meta = `linux-image-cloud-${hostArchitecture().debian}`;
  const { depends } = await archive.show(meta);
  const real = /(?:^|, )linux-image-([a-z0-9.+-]{1,64}) \(= ([A-Za-z0-9.+~:-]{1,64})\)/.exec(depends);
  if (real === null) throw new PyroError("REGISTRY", `The package ${meta} does not say which kernel it stands for.`);
  const [, release, version] = real as unknown as [string, string, string];
  const id = `${release}_${version.replaceAll(":", "~")}`;
  return inStore(id, reporter, signal, async (directory) => {
    reporter.phase("kernel", `fetching Linux ${release}`);
    const deb = await archive.download(`linux-image-${release}`, version);
    reporter.phase("kernel", `unpacking Linux ${release}`);
    return { version: release, source: `debian:linux-image-${release}=${version}`, ...(await unpackPackage(deb, directory, signal)) };
  });
}

/** The kernel in the directory that PYRO_KERNEL_DIR names, brought into the store. */
export async function directoryKernel(path: string, reporter: Reporter, signal: AbortSignal | undefined): Promise<Kernel> {
  const temporary = await makeTemporary();
  try {
    const content = join(temporary.path, "kernel");
    await mkdir(content);
    const source = await directorySource(path);
    const parts = await copyDirectory(path, content, signal).catch((error: unknown) => {
      throw directoryError(path, error);
    });
    const digests = await Promise.all(["vmlinux", ...parts.order.map((name) => `${name}.ko`)].map((each) => hashFile(join(content, each), signal)));
    const id = `directory-${digestOf([source, ...digests.map((each) => each.digest)].join("\n")).slice(7, 39)}`;
    return await inStore(id, reporter, signal, async (directory) => {
      await rm(directory, { recursive: true });
      await rename(content, directory);
      return { ...parts, source };
    });
  } finally {
    await temporary.remove();
  }
}

/** The kernel `id` if it is in the store and undamaged. Reads all of it. */
export async function findKernel(id: string, signal: AbortSignal | undefined): Promise<Kernel | undefined> {
  try {
    return await readKernel(id, signal);
  } catch (error) {
    if (error instanceof PyroError && error.code !== "ENVIRONMENT_INVALID") throw error;
    return undefined;
  }
}

/** The kernel of Debian's that was fetched last, if it is undamaged: an image needs one, and no network for it. */
export async function newestKernel(signal: AbortSignal | undefined): Promise<Kernel | undefined> {
  const found: { id: string; mtimeMs: number }[] = [];
  for (const id of await namesIn(places.kernels())) {
    if (!kernelIdPattern.test(id) || id === "lock") continue;
    const there = await stat(join(places.kernel(id), "kernel.json")).catch(() => undefined);
    if (there !== undefined) found.push({ id, mtimeMs: there.mtimeMs });
  }
  for (const { id } of found.sort((a, b) => b.mtimeMs - a.mtimeMs)) {
    const kernel = await findKernel(id, signal);
    if (kernel !== undefined && (await isWantedKernelSource(kernel.source))) return kernel;
  }
  return undefined;
}

/** What a kernel is made of. */
interface Parts {
  version: string;
  source: string;
  /** Names of the modules, in the order they go in; files are `NAME.ko`. */
  order: string[];
}

async function inStore(id: string, reporter: Reporter, signal: AbortSignal | undefined, make: (directory: string) => Promise<Parts>): Promise<Kernel> {
  await makePrivate(places.kernels());
  const lock = await takeLock(places.kernelLock(), { ...(signal === undefined ? {} : { signal }), onWait: () => reporter.phase("waiting", "another process is fetching the kernel") });
  try {
    reporter.phase("kernel", "checking the kernel");
    const found = await findKernel(id, signal);
    if (found !== undefined) return found;
    const temporary = await makeTemporary();
    try {
      const directory = join(temporary.path, "made");
      await mkdir(directory, { mode: 0o700 });
      await writeRecord(directory, await make(directory));
      await removeTree(places.kernel(id));
      await rename(directory, places.kernel(id));
      await syncDirectory(places.kernels());
    } finally {
      await temporary.remove();
    }
    return await readKernel(id, signal);
  } finally {
    await lock.release();
  }
}

/** kernel.json: what is there and its digests. */
async function writeRecord(directory: string, parts: Parts): Promise<void> {
  const files = await Promise.all(
    ["vmlinux", ...parts.order.map((name) => `${name}.ko`)].map(async (name) => {
      const { sizeBytes, digest } = await hashFile(join(directory, name));
      await syncFile(join(directory, name));
      return { name, size_bytes: sizeBytes, digest };
    }),
  );
  await writeFile(join(directory, "kernel.json"), `${JSON.stringify({ schema_version: 1, version: parts.version, source: parts.source, files }, undefined, 2)}\n`, { mode: 0o600 });
  await syncFile(join(directory, "kernel.json"));
}

async function readKernel(id: string, signal: AbortSignal | undefined): Promise<Kernel> {
  if (!kernelIdPattern.test(id)) throw new PyroError("ENVIRONMENT_INVALID", "The kernel's name is damaged.");
  const directory = places.kernel(id);
  const record = await readRecord(join(directory, "kernel.json"), 1 << 20);
  if (record === undefined) throw new PyroError("ENVIRONMENT_INVALID", `The kernel ${id} is not there.`);
  record.integer("schema_version", 1, 1);
  const files = await Promise.all(
    record.list("files", moduleLimits.modules + 1).map(async (each) => {
      const name = each.text("name", 80, /^[A-Za-z0-9_]+(\.ko)?$/);
      const path = join(directory, name);
      const digest = each.text("digest", 71, digestPattern);
      const found = await hashFile(path, signal).catch(() => undefined);
      if (found === undefined || found.digest !== digest || found.sizeBytes !== each.integer("size_bytes", 1, maxVmlinuxBytes)) throw new PyroError("ENVIRONMENT_INVALID", `${path} is damaged.`);
      return { name: name.replace(/\.ko$/, ""), path, sizeBytes: found.sizeBytes, digest };
    }),
  );
  const [vmlinux, ...modules] = files;
  if (vmlinux?.name !== "vmlinux") throw new PyroError("ENVIRONMENT_INVALID", `The kernel ${id} has no vmlinux.`);
  return { id, directory, version: record.text("version", 128, kernelIdPattern), source: record.text("source", 4096), digest: kernelDigest(vmlinux.digest, modules), vmlinux, modules };
}

function kernelDigest(vmlinux: string, modules: readonly { name: string; digest: string }[]): string {
  return digestOf(`pyro kernel 1\n${vmlinux}\n${modules.map((each) => `${each.name} ${each.digest}\n`).join("")}`);
}

async function unpackPackage(deb: string, directory: string, signal: AbortSignal | undefined): Promise<{ order: string[] }> {
  // Twice through the package: the first time tells which of its thousand modules are needed, the second takes those.
  const infos = new Map<string, ModuleInfo>();
  let vmlinuz: Buffer | undefined;
  let builtIn = new Set<string>();
  await eachFile(deb, signal, async (path, entry) => {
    if (path.startsWith("boot/vmlinuz-")) vmlinuz = await readWhole(entry.content(), maxVmlinuzBytes, "The kernel image");
    else if (/^lib\/modules\/[^/]+\/modules\.builtin$/.test(path)) builtIn = builtInNames((await readWhole(entry.content(), 1 << 20, "modules.builtin")).toString("latin1"));
    else if (isModule(path)) infos.set(moduleName(path), readModuleInfo(await readWhole(entry.content(), moduleLimits.bytes, path), moduleName(path)));
  });
  if (vmlinuz === undefined) throw new PyroError("ENVIRONMENT_INVALID", "The kernel's package has no boot/vmlinuz.");
  await unpackKernel(vmlinuz, directory, "The kernel in Debian's package", signal);
  const order = orderModules(wantedModules, infos, (name) => builtIn.has(name));
  await eachFile(deb, signal, async (path, entry) => {
    if (!isModule(path) || !order.includes(moduleName(path))) return;
    await writeFile(join(directory, `${moduleName(path)}.ko`), await readWhole(entry.content(), moduleLimits.bytes, path), { mode: 0o600 });
  });
  return { order };
}

/** Calls `take` for each file of a .deb; what it does not read is skipped. */
async function eachFile(deb: string, signal: AbortSignal | undefined, take: (path: string, entry: TarEntry) => Promise<void>): Promise<void> {
  const { program, args } = await tarOfPackage(deb, signal);
  const { exit, failure } = await runKept(program, args, { timeoutMs: 300_000, ...(signal === undefined ? {} : { signal }) }, async (stdout) => {
    for await (const entry of readTar(stdout, { limits: { maxEntries: 100_000, maxArchiveBytes: 4 * 2 ** 30 } })) {
      if (entry.type === "file") await take(entry.path.toString("latin1").replace(/^\.?\/+/, ""), entry);
    }
  });
  if (failure instanceof Error) throw failure;
  if (exit.code !== 0) throw aptError("The kernel's package could not be unpacked", exit.stderr);
}

function isModule(path: string): boolean {
  return /^lib\/modules\/[^/]+\/kernel\/.*\.ko$/.test(path);
}

function builtInNames(list: string): Set<string> {
  return new Set(list.split("\n").filter((line) => line.endsWith(".ko")).map(moduleName));
}

/** Writes `directory`/vmlinux out of a bzImage; `what` names that in errors. The lz4 program does the work: it is faster than anything in JavaScript and is checked by size. */
async function unpackKernel(vmlinuz: Buffer, directory: string, what: string, signal: AbortSignal | undefined): Promise<void> {
  const { compressed, unpackedBytes } = findPayload(vmlinuz);
  const packed = join(directory, "vmlinux.lz4");
  const vmlinux = join(directory, "vmlinux");
  await writeFile(packed, compressed, { mode: 0o600 });
  const file = await open(vmlinux, "wx", 0o600);
  try {
    const { exit, failure } = await runKept("lz4", ["-d", "-q", "-c", packed], { timeoutMs: 120_000, ...(signal === undefined ? {} : { signal }) }, async (stdout) => {
      let total = 0;
      for await (const chunk of stdout) {
        total += chunk.length;
        if (total > unpackedBytes) throw new PyroError("ENVIRONMENT_INVALID", `The kernel has more than the ${unpackedBytes} bytes it says it has.`);
        await file.writeFile(chunk);
      }
      if (total !== unpackedBytes) throw new PyroError("ENVIRONMENT_INVALID", `The kernel has ${total} bytes unpacked and says it has ${unpackedBytes}.`);
    });
    if (failure instanceof Error) throw failure;
    if (exit.code !== 0) throw new PyroError("ENVIRONMENT_INVALID", `The kernel could not be unpacked: ${harmlessLine(exit.stderr.trim(), 800)}`);
  } finally {
    await file.close();
  }
  await rm(packed);
  await checkVmlinux(vmlinux, what);
}

/** Throws ENVIRONMENT_INVALID unless the file begins as a 64-bit ELF program does; `what` is the file it came from. */
async function checkVmlinux(path: string, what: string): Promise<void> {
  const file = await openRegular(path);
  try {
    const head = Buffer.alloc(20);
    const { bytesRead } = await file.read(head, 0, 20, 0);
    const isElf = bytesRead === 20 && head.readUInt32BE(0) === 0x7f454c46 && head[4] === 2 && head[5] === 1 && head.readUInt16LE(16) === 2; // ELF, 64 bits, little-endian, a program
    if (!isElf) throw new PyroError("ENVIRONMENT_INVALID", `${what} is no 64-bit ELF kernel.`);
  } finally {
    await file.close();
  }
}

async function copyDirectory(path: string, target: string, signal: AbortSignal | undefined): Promise<{ order: string[]; version: string }> {
  const present = await readdir(path);
  if (present.includes("vmlinux")) {
    await copyRegular(join(path, "vmlinux"), join(target, "vmlinux"), maxVmlinuxBytes);
    await checkVmlinux(join(target, "vmlinux"), join(path, "vmlinux"));
  } else if (present.includes("vmlinuz")) {
    await unpackKernel(await readRegular(join(path, "vmlinuz"), maxVmlinuzBytes), target, join(path, "vmlinuz"), signal);
  } else {
    throw new PyroError("ENVIRONMENT_INVALID", `There is neither vmlinux nor vmlinuz in ${path}.`);
  }
  const modules = present.includes("modules") ? (await readdir(join(path, "modules"))).filter((each) => each.endsWith(".ko")).sort() : [];
  const files = new Map<string, string>();
  const infos = new Map<string, ModuleInfo>();
  for (const each of modules) {
    const file = join(path, "modules", each);
    const name = moduleName(each).replace(/^[0-9]{2}_/, ""); // as an initramfs of ours names them
    infos.set(name, readModuleInfo(await readRegular(file, moduleLimits.bytes), name));
    files.set(name, file);
  }
  // Without a list of what is built in, what is not there is taken to be: such a kernel was made for this.
  const order = orderModules(wantedModules, infos, () => true);
  for (const name of order) await copyRegular(files.get(name)!, join(target, `${name}.ko`), moduleLimits.bytes);
  const releases = new Set(order.map((name) => infos.get(name)!.release));
  if (releases.size > 1) throw new PyroError("ENVIRONMENT_INVALID", `The modules in ${path}/modules are for different kernels: ${[...releases].join(", ")}.`);
  return { order, version: [...releases][0] ?? "unknown" };
}

/** copyFile(3) would wait for the writer of a FIFO: what is copied is what was opened and looked at. */
async function copyRegular(from: string, to: string, maxBytes: number): Promise<void> {
  const file = await openRegular(from, { maxBytes });
  try {
    await copyFile(`/proc/self/fd/${file.fd}`, to);
  } finally {
    await file.close();
  }
}
