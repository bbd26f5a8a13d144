/** The server name in TLS' first message (RFC 8446, 4.1.2; RFC 6066, 3), which is in the clear in every version of TLS. */

/** Post-quantum key shares make it 2 KiB; more than this is no hello. */
export const maxHelloBytes = 32_768;

const handshake = 22;
const clientHello = 1;
const recordHeaderBytes = 5;
const maxRecordBytes = 16_384;
/** Nobody needs more for it. */
const maxRecords = 64;

/** "more": it is not all there yet. "none": it is no hello. Else the name, in lower case, if there is one. */
export function readClientHello(bytes: Buffer): "more" | "none" | { name: string | undefined } {
  const message = joinRecords(bytes);
  if (typeof message === "string") return message;
  const reader = new Reader(message);
  try {
    reader.skip(4 + 2 + 32); // its own header, version, random
    reader.skip(reader.number(1)); // session
    reader.skip(reader.number(2)); // cipher suites
    reader.skip(reader.number(1)); // compression
    if (reader.left === 0) return { name: undefined };
    const extensions = new Reader(reader.take(reader.number(2)));
    let name: string | undefined;
    while (extensions.left > 0) {
      const type = extensions.number(2);
      const body = extensions.take(extensions.number(2));
      if (type !== 0) continue;
      if (name !== undefined) return "none"; // two would let us read the other one than the server does
      name = readServerName(body);
    }
    return { name };
  } catch (error) {
    if (error instanceof RangeError) return "none";
    throw error;
  }
}

/** The handshake message, which may be spread over several records. */
function joinRecords(bytes: Buffer): Buffer | "more" | "none" {
  const parts: Buffer[] = [];
  let length = 0;
  for (let at = 0; parts.length < maxRecords; ) {
    if (bytes.length - at < recordHeaderBytes) return "more";
    if (bytes[at] !== handshake || bytes[at + 1] !== 3) return "none";
    const recordBytes = bytes.readUInt16BE(at + 3);
    if (recordBytes === 0 || recordBytes > maxRecordBytes) return "none";
    const part = bytes.subarray(at + recordHeaderBytes, at + recordHeaderBytes + recordBytes);
    parts.push(part);
    length += part.length;
    const isWhole = part.length === recordBytes;
    if (length >= 4) {
      const head = parts[0]!.length >= 4 ? parts[0]! : Buffer.concat(parts);
      const wanted = 4 + head.readUIntBE(1, 3);
      if (head[0] !== clientHello || wanted > maxHelloBytes) return "none";
      if (length >= wanted) return Buffer.concat(parts).subarray(0, wanted);
    }
    if (!isWhole) return "more";
    at += recordHeaderBytes + recordBytes;
  }
  return "none";
}

function readServerName(body: Buffer): string | undefined {
  const list = new Reader(body);
  const names = new Reader(list.take(list.number(2)));
  if (list.left > 0) throw new RangeError("trailing bytes");
  const type = names.number(1);
  const name = names.take(names.number(2)).toString("latin1").toLowerCase();
  if (type !== 0 || names.left > 0) throw new RangeError("not one host name");
  return name;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  number(bytes: 1 | 2): number {
    const value = this.#bytes.readUIntBE(this.#at, bytes);
    this.#at += bytes;
    return value;
  }

  take(count: number): Buffer {
    if (count > this.left) throw new RangeError("too short");
    return this.#bytes.subarray(this.#at, (this.#at += count));
  }

  skip(count: number): void {
    this.take(count);
  }
}
