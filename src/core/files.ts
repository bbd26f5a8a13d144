/** A guest's file as one piece. */
import { PyroError } from "../base/error.js";
import type { Channel, GuestPath } from "../channel/index.js";

/** Throws INVALID_ARGUMENT, INVALID_STATE above `maxBytes`, and what reading throws. */
export async function readWhole(channel: Channel, path: GuestPath, maxBytes: number, signal?: AbortSignal): Promise<Buffer> {
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 0) throw new PyroError("INVALID_ARGUMENT", `max_bytes is ${String(maxBytes)}; it is a whole number of bytes.`);
  const parts: Buffer[] = [];
  let total = 0;
  for await (const part of channel.readFile(path, signal === undefined ? {} : { signal }) as AsyncIterable<Buffer>) {
    total += part.length;
    if (total > maxBytes) throw new PyroError("INVALID_STATE", `${path.toString()} has over ${maxBytes} bytes.`, { hint: "Read it as a stream, or in parts." });
    parts.push(part);
  }
  return Buffer.concat(parts, total);
}
