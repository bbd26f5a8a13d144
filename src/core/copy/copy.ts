/** Trees of files between host and guest. */
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PyroError } from "../../base/error.js";
import type { AnsweringVm } from "../exec.js";
import { readHostTree } from "./host-tree.js";
import { writeHostTree } from "./host-write.js";
import { CopyCounter, type CopyProgress } from "./progress.js";

export interface CopyOptions {
  /** Replaces what is there: out of a guest as a whole, into it file by file. Without it, EXISTS. */
  replace?: boolean;
  /** Keeps owners, and out of a guest set-user-id and set-group-id too; to be trusted with what is in the guest. Needs root on the host, out of a guest. */
  archive?: boolean;
  /** Into a guest: makes what is missing above the destination. */
  makeParents?: boolean;
  /** Out of a guest: most bytes of content, holes included; default 64 GiB. A guest may send without an end. */
  maxBytes?: number;
  signal?: AbortSignal;
  onProgress?: (progress: CopyProgress) => void;
}

/** One with a record can be asked for by its id. */
type CopiedVm = AnsweringVm & { shared?: boolean };

const defaultMaxBytes = 64 * 2 ** 30;

export interface CopyResult {
  /** Where it is now. */
  destination: string;
  entries: number;
  contentBytes: number;
  /** Devices and sockets, which can't be copied; out of a guest also FIFOs and what is mounted below. */
  skipped: number;
}

/**
 * Copies a file or a directory with all in it into the guest, modes, times, links and hard links kept; all is root's there without `archive`. A `destination` that
 * is a directory gets it inside. Whole or not there, except with `replace`. Throws NOT_FOUND, EXISTS, DENIED, INVALID_STATE, GUEST_LOST, CANCELLED.
 */
export async function copyIn(vm: AnsweringVm, source: string, destination: string, options: CopyOptions = {}): Promise<CopyResult> {
  const { signal } = options;
  const counter = new CopyCounter(options.onProgress);
  const from = resolve(source);
  const place = (await isGuestDirectory(vm, destination, signal)) ? `${destination.replace(/\/+$/, "")}/${nameOf(from, source)}` : destination;
  const unpacked = vm.channel.unpackTree(place, readHostTree(from, counter, signal), {
    ...(options.replace && { merge: true }),
    ...(options.archive && { owners: true }),
    ...(options.makeParents && { makeParents: true }),
    ...(signal && { signal }),
  });
  await unpacked.catch(async (error: unknown) => {
    if (!(error instanceof PyroError)) throw error;
    if (error.code === "NOT_FOUND" && !options.makeParents && !(await isGuestDirectory(vm, dirname(place), signal).catch(() => true))) {
      throw new PyroError("NOT_FOUND", `The directory ${dirname(place)} is not there, in the VM.`, { cause: error, hint: "Give --parents (makeParents) to have it made, or another destination." });
    }
    if (error.code !== "EXISTS") throw error;
    throw new PyroError("EXISTS", `${place} is there already, in the VM.`, { cause: error, hint: "Give another name, or --force to replace what is there file by file." });
  });
  return { destination: place, entries: counter.entries, contentBytes: counter.contentBytes, skipped: counter.skipped };
}

/**
 * Copies a file or a directory with all in it out of the guest. No link of the guest's is ever followed on the host, all belongs to the caller, and set-user-id is dropped,
 * unless `archive` says so. Whole or not there. Throws NOT_FOUND, EXISTS, DENIED, DISK_FULL, PROTOCOL, GUEST_LOST, CANCELLED.
 */
export async function copyOut(vm: CopiedVm, source: string, destination: string, options: CopyOptions = {}): Promise<CopyResult> {
  const { signal, replace, archive, maxBytes = defaultMaxBytes } = options;
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 0) throw new PyroError("INVALID_ARGUMENT", `max_bytes is ${maxBytes}; it is a whole number of bytes.`);
  const counter = new CopyCounter(options.onProgress);
  const to = resolve(destination);
  await checkCopyable(vm, source, signal);
  const place = (await isHostDirectory(to)) ? join(to, nameOf(source, source)) : to;
  const tree = vm.channel.packTree(source, { maxContentBytes: maxBytes, ...(signal && { signal }) });
  await writeHostTree(place, tree, counter, { ...(replace && { replace }), ...(archive && { archive }), ...(signal && { signal }) });
  return { destination: place, entries: counter.entries, contentBytes: counter.contentBytes, skipped: counter.skipped + (await tree.totals).skipped };
}

function nameOf(path: string, given: string): string {
  const name = basename(path);
  if (name === "" || name === "." || name === "..") throw new PyroError("INVALID_ARGUMENT", `${given} has no name of its own to be copied under.`, { hint: "Give the destination's name as well." });
  return name;
}

async function isGuestDirectory(vm: AnsweringVm, path: string, signal?: AbortSignal): Promise<boolean> {
  return vm.channel.stat(path, { follow: true, ...(signal && { signal }) }).then(
    (found) => found.type === "directory",
    (error: unknown) => {
      if (error instanceof PyroError && error.code === "NOT_FOUND") return false;
      throw error;
    },
  );
}

/** Else there would be nothing in the tree, as if the guest had made a mistake. */
async function checkCopyable(vm: CopiedVm, path: string, signal?: AbortSignal): Promise<void> {
  const { type } = await vm.channel.stat(path, signal && { signal }).catch((error: unknown) => {
    if (!(error instanceof PyroError) || error.code !== "NOT_FOUND") throw error;
    throw new PyroError("NOT_FOUND", `${path} is not there, in the VM.`, { cause: error, ...(vm.shared && { hint: `\`pyro vm exec ${vm.vmId} -- ls ${dirname(path)}\` shows what is.` }) });
  });
  if (!["file", "directory", "link", "fifo"].includes(type)) throw new PyroError("INVALID_ARGUMENT", `${path} is a device or a socket, which can't be copied.`);
}

async function isHostDirectory(path: string): Promise<boolean> {
  return stat(path).then((found) => found.isDirectory(), () => false);
}
