/** A tar stream as a layer of an image: compressed, and known by both its digests. */
import { createHash } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { checkSignal } from "../../base/deadline.js";
import { PyroError, toPyroError } from "../../base/error.js";

export interface NewLayer {
  /** Where it is. */
  path: string;
  /** `sha256:…` of the file. */
  digest: string;
  sizeBytes: number;
  /** `sha256:…` of the tar stream. */
  diffId: string;
}

export interface NewLayerOptions {
  /** Bytes of the tar stream. */
  maxBytes: number;
  signal?: AbortSignal | undefined;
  /** Bytes of the tar stream so far. */
  onBytes?: (bytes: number) => void;
}

/** Much quicker than the usual level, and nearly as small. */
const gzipLevel = 1;

/** Writes the layer to `path`; what fails leaves nothing there. Nothing in the stream is looked at. Throws ENVIRONMENT_INVALID beyond `maxBytes`, DISK_FULL, CANCELLED, and what `tar` throws. */
export async function writeLayer(tar: AsyncIterable<Uint8Array>, path: string, { maxBytes, signal, onBytes }: NewLayerOptions): Promise<NewLayer> {
  const [diffId, digest] = [createHash("sha256"), createHash("sha256")];
  let [tarBytes, sizeBytes] = [0, 0];
  const file = await open(path, "wx", 0o600);
  try {
    await pipeline(
      async function* () {
        for await (const chunk of tar) {
          checkSignal(signal);
          tarBytes += chunk.length;
          if (tarBytes > maxBytes) throw new PyroError("ENVIRONMENT_INVALID", `The layer has more than ${maxBytes} bytes (maxNewLayerBytes).`, { hint: "Holes in files count as zeros. A larger disk (--disk-mib) allows more." });
          diffId.update(chunk);
          onBytes?.(tarBytes);
          yield chunk;
        }
      },
      createGzip({ level: gzipLevel, chunkSize: 1 << 18 }),
      async (packed: AsyncIterable<Buffer>) => {
        for await (const chunk of packed) {
          digest.update(chunk);
          sizeBytes += chunk.length;
          await file.appendFile(chunk);
        }
      },
    );
  } catch (error) {
    await file.close();
    await rm(path, { force: true });
    throw toPyroError(error);
  }
  await file.close();
  return { path, digest: `sha256:${digest.digest("hex")}`, sizeBytes, diffId: `sha256:${diffId.digest("hex")}` };
}
