/** A stored layer as the tar stream that it is: uncompressed, bounded, and checked against what the image says it is. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline, type Transform } from "node:stream";
import * as zlib from "node:zlib";
import { PyroError } from "../../base/error.js";
import { cutAtFrames, maxZstdWindowBytes, unzstd } from "./zstd.js";

export const layerLimits = {
  /** Bytes of one layer, uncompressed. */
  maxLayerTarBytes: 2 ** 38,
  /** How many times as many bytes as are stored. gzip can't do more than 1032; zstd can, with nothing but repetition. */
  maxExpansionRatio: 1100,
  /** Bytes that are not measured by that ratio. */
  freeBytes: 64 << 20,
} as const;

export interface StoredLayer {
  /** `sha256:…` of what is stored; for messages. */
  digest: string;
  path: string;
  sizeBytes: number;
  /** `sha256:…` of the tar stream. */
  diffId: string;
}

const chunkBytes = 1 << 19;
/** The decoder works in a thread of its own, and may be that far ahead of whoever reads it. */
const ahead = { chunkSize: chunkBytes, readableHighWaterMark: 8 * chunkBytes };

/** Throws ENVIRONMENT_INVALID for data that is damaged, over a limit, or not what `diffId` says. */
export async function* openLayer(layer: StoredLayer, limits: { maxLayerTarBytes: number; maxExpansionRatio: number; freeBytes: number } = layerLimits): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  let bytes = 0;
  const ratioBytes = limits.freeBytes + limits.maxExpansionRatio * layer.sizeBytes;
  for await (const chunk of uncompressed(createReadStream(layer.path, { highWaterMark: chunkBytes }))) {
    bytes += chunk.length;
    if (bytes > limits.maxLayerTarBytes) throw new PyroError("ENVIRONMENT_INVALID", `It is over the limit maxLayerTarBytes (${limits.maxLayerTarBytes}).`);
    if (bytes > ratioBytes) throw new PyroError("ENVIRONMENT_INVALID", `Its ${layer.sizeBytes} bytes become more than ${ratioBytes}, over the limit maxExpansionRatio (${limits.maxExpansionRatio}).`);
    hash.update(chunk);
    yield chunk;
  }
  const found = `sha256:${hash.digest("hex")}`;
  if (found !== layer.diffId) throw new PyroError("ENVIRONMENT_INVALID", `Uncompressed it is ${found}, and the image's configuration says ${layer.diffId}.`);
}

/** By its first bytes, as the media type is often wrong. */
export async function* uncompressed(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { head, whole } = await withHead(source, 4);
  if (head.length >= 2 && head[0] === 0x1f && head[1] === 0x8b) yield* through(whole, zlib.createGunzip(ahead));
  else if (isZstd(head)) yield* hasZstd(zlib) ? through(cutAtFrames(whole), zlib.createZstdDecompress({ ...ahead, params: { [zlib.constants.ZSTD_d_windowLogMax]: Math.log2(maxZstdWindowBytes) } })) : unzstd(whole);
  else yield* whole;
}

/** The first bytes, as many as are asked for if there are that many, and all of it. */
export async function withHead(source: AsyncIterable<Uint8Array>, bytes: number): Promise<{ head: Buffer; whole: AsyncGenerator<Uint8Array> }> {
  const iterator = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  while (head.length < bytes) {
    const next = await iterator.next();
    if (next.done) break;
    head = head.length === 0 ? Buffer.from(next.value.buffer, next.value.byteOffset, next.value.length) : Buffer.concat([head, next.value]);
  }
  return { head, whole: joined(head, iterator) };
}

async function* joined(first: Buffer, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    if (first.length > 0) yield first;
    for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}

async function* through(source: AsyncIterable<Uint8Array>, decoder: Transform): AsyncGenerator<Uint8Array> {
  pipeline(source, decoder, () => {}); // an error of either is what reading the decoder rejects with
  try {
    for await (const chunk of decoder as AsyncIterable<Buffer>) yield chunk;
  } catch (error) {
    if (error instanceof PyroError) throw error;
    if (error instanceof Error && "code" in error && /^(Z_|ZSTD_)/.test(String(error.code))) throw new PyroError("ENVIRONMENT_INVALID", `Its compressed data is damaged: ${error.message}.`, { cause: error });
    throw error;
  } finally {
    decoder.destroy();
  }
}

function isZstd(head: Buffer): boolean {
  if (head.length < 4) return false;
  const magic = head.readUInt32LE(0);
  return magic === 0xfd2fb528 || (magic >= 0x184d2a50 && magic <= 0x184d2a5f);
}

/** What Node 22.15 and later have. */
interface WithZstd {
  createZstdDecompress(options: { chunkSize: number; params: Record<number, number> }): Transform;
  constants: { ZSTD_d_windowLogMax: number };
}

function hasZstd(module: object): module is WithZstd {
  return "createZstdDecompress" in module;
}
