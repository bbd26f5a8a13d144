/**
 * Content by its digest, once, however many images have it. What was fetched in part is kept, so that another try goes on from there, also
 * after this process has ended.
 */
import { createHash, type Hash } from "node:crypto";
import { open, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomic } from "../../base/atomic.js";
import { checkSignal, sleep } from "../../base/deadline.js";
import { PyroError, toPyroError } from "../../base/error.js";
import { takeLock } from "../../base/lock.js";
import { log } from "../../base/log.js";
import { readRegular } from "../../base/regular-file.js";
import { digestOf, hashFile } from "../digest.js";
import { makePrivate, places } from "../places.js";
import type { Descriptor } from "./documents.js";

/** Reads a blob from the byte `offset` on. Returns from where it really is read: 0 where it can't be read from the middle. */
export type OpenBlob = (descriptor: Descriptor, offset: number) => Promise<{ offset: number; content: AsyncIterable<Uint8Array> }>;

/** A source that broke off in the middle, or was busy: what was read so far is good, and asking again may help. */
export class BrokenOff extends PyroError {
  constructor(message: string, options: { cause?: unknown; hint?: string; readonly waitMs?: number } = {}) {
    super("REGISTRY", message, options);
    this.waitMs = options.waitMs;
  }
  /** How long it asked to be left alone, milliseconds. */
  readonly waitMs: number | undefined;
}

export interface FetchOptions {
  signal?: AbortSignal | undefined;
  /** Bytes that are there. */
  onBytes?: (bytes: number) => void;
}

/** Tries that brought nearly nothing, one after the other, before it is given up. */
const maxFruitlessTries = 5;
const fruitBytes = 65_536;
const firstPauseMs = 500;

/** The path of the blob, which is fetched unless it is there. Two who want the same one fetch it once. Throws REGISTRY, DISK_FULL, CANCELLED, and what `openBlob` throws. */
export async function fetchBlob(descriptor: Descriptor, openBlob: OpenBlob, options: FetchOptions = {}): Promise<string> {
  const path = places.blob(hexOf(descriptor));
  if (await isThere(path, descriptor)) {
    options.onBytes?.(descriptor.sizeBytes);
    return path;
  }
  await makePrivate(places.blobs());
  await makePrivate(places.partialBlobs());
  const partial = join(places.partialBlobs(), hexOf(descriptor));
  const lock = await takeLock(`${partial}.lock`, options.signal === undefined ? {} : { signal: options.signal });
  try {
    if (!(await isThere(path, descriptor))) {
      await complete(descriptor, partial, openBlob, options);
      await rename(partial, path);
      await rm(`${partial}.lock`, { force: true }); // whoever waits for it holds what was its file, and finds the blob
    }
    options.onBytes?.(descriptor.sizeBytes);
    return path;
  } finally {
    await lock.release();
  }
}

/** A small blob, read whole and checked: what is kept is fetched again if it has been changed. */
export async function fetchDocument(descriptor: Descriptor, openBlob: OpenBlob, options: FetchOptions = {}): Promise<Buffer> {
  for (let again = false; ; again = true) {
    const path = await fetchBlob(descriptor, openBlob, options);
    const data = await readRegular(path, descriptor.sizeBytes);
    if (digestOf(data) === descriptor.digest) return data;
    if (again) throw new PyroError("ENVIRONMENT_INVALID", `${path} has changed while it was read.`);
    await rm(path);
  }
}

/** Keeps a small blob that is there already. */
export async function keepDocument(data: Uint8Array): Promise<void> {
  await makePrivate(places.blobs());
  await writeAtomic(places.blob(hexOf({ digest: digestOf(data) })), data, 0o600);
}

/** Removes those of the blobs that are no longer what their digest says. True if there were any: fetching them again may help. */
export async function removeDamaged(blobs: readonly Descriptor[], signal: AbortSignal | undefined): Promise<boolean> {
  let found = false;
  for (const blob of blobs) {
    const path = places.blob(hexOf(blob));
    const { digest } = await hashFile(path, signal).catch(() => ({ digest: undefined }));
    if (digest === undefined || digest === blob.digest) continue;
    log("blob is damaged", { digest: blob.digest });
    await rm(path);
    found = true;
  }
  return found;
}

/** Whether it is kept, as far as its size tells. */
export async function isKept(blob: Descriptor): Promise<boolean> {
  return isThere(places.blob(hexOf(blob)), blob);
}

export function hexOf({ digest }: { digest: string }): string {
  return digest.slice("sha256:".length);
}

async function isThere(path: string, { sizeBytes }: Descriptor): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && found.isFile() && found.size === sizeBytes;
}

async function complete(descriptor: Descriptor, partial: string, openBlob: OpenBlob, options: FetchOptions): Promise<void> {
  const file = await open(partial, "a+", 0o600).catch((error: unknown) => {
    throw toPyroError(error);
  });
  try {
    const part = await Part.of(file, descriptor);
    const resumed = part.bytes > 0;
    let fruitless = 0;
    let most = part.bytes; // who begins anew each time, and breaks off, brings nothing before that
    while (part.bytes < descriptor.sizeBytes || (descriptor.sizeBytes === 0 && fruitless === 0)) {
      checkSignal(options.signal);
      const opened = await openBlob(descriptor, part.bytes); // whoever opens has tried again by itself
      const failure = await part.take(opened, options).then(() => undefined, (error: unknown) => {
        if (error instanceof BrokenOff) return error;
        throw error;
      });
      if (part.bytes >= descriptor.sizeBytes) break;
      fruitless = part.bytes >= most + fruitBytes ? 0 : fruitless + 1;
      most = Math.max(most, part.bytes);
      const why = failure ?? new BrokenOff(`The content ${descriptor.digest} ended after ${part.bytes} of ${descriptor.sizeBytes} bytes.`);
      if (fruitless >= maxFruitlessTries) throw why;
      log("blob broke off", { digest: descriptor.digest, bytes: part.bytes, why: why.message });
      await sleep(why.waitMs ?? firstPauseMs * 2 ** fruitless, options.signal);
    }
    if (part.digest() !== descriptor.digest) {
      await part.restart();
      if (resumed) return await complete(descriptor, partial, openBlob, options); // what was kept may have been the bad part
      throw new PyroError("REGISTRY", `The content that came for ${descriptor.digest} is not that: it was changed on its way, or is damaged where it is kept.`);
    }
    // Not synced: that takes as long as all the rest, and what a crash of the host damages is found by its digest (`removeDamaged`).
  } finally {
    await file.close();
  }
}

/** What there is of a blob, and the digest over it so far. */
class Part {
  bytes = 0;
  private hash: Hash = createHash("sha256");

  private constructor(
    private readonly file: FileHandle,
    private readonly descriptor: Descriptor,
  ) {}

  static async of(file: FileHandle, descriptor: Descriptor): Promise<Part> {
    const part = new Part(file, descriptor);
    if ((await file.stat()).size > descriptor.sizeBytes) await file.truncate(0);
    const buffer = Buffer.allocUnsafe(1 << 20);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, part.bytes);
      if (bytesRead === 0) return part;
      part.hash.update(buffer.subarray(0, bytesRead));
      part.bytes += bytesRead;
    }
  }

  digest(): string {
    return `sha256:${this.hash.copy().digest("hex")}`;
  }

  async restart(): Promise<void> {
    await this.file.truncate(0);
    this.bytes = 0;
    this.hash = createHash("sha256");
  }

  async take({ offset, content }: Awaited<ReturnType<OpenBlob>>, { onBytes, signal }: FetchOptions): Promise<void> {
    if (offset !== this.bytes) {
      if (offset !== 0) throw new PyroError("REGISTRY", `The content ${this.descriptor.digest} was sent from the byte ${offset} on, and asked for from ${this.bytes} on.`);
      await this.restart();
    }
    for await (const chunk of content) {
      checkSignal(signal);
      if (this.bytes + chunk.length > this.descriptor.sizeBytes) {
        await this.restart();
        throw new PyroError("REGISTRY", `The content ${this.descriptor.digest} has more than the ${this.descriptor.sizeBytes} bytes that its image says it has.`);
      }
      await this.file.appendFile(chunk).catch((error: unknown) => {
        throw toPyroError(error);
      });
      this.hash.update(chunk);
      this.bytes += chunk.length;
      onBytes?.(this.bytes);
    }
  }
}
