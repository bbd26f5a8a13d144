/** Makes tar archives byte by byte, wrong ones too. */

export interface Member {
  name: string | Buffer;
  type?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  link?: string | Buffer;
  data?: string | Buffer;
  /** What the size field says, if not the data's length. */
  size?: number;
  device?: [major: number, minor: number];
  /** Records of an extended header in front of this member. */
  pax?: Record<string, string | Buffer>;
  /** `ustar` unless said otherwise. */
  magic?: "ustar" | "gnu" | "v7";
  prefix?: string;
  /** Last changes to the header, before its checksum is made. */
  patch?: (header: Buffer) => void;
}

export function header(member: Member): Buffer {
  const block = Buffer.alloc(512);
  const put = (at: number, value: string | Buffer) => (Buffer.isBuffer(value) ? value : Buffer.from(value, "latin1")).copy(block, at);
  const octal = (at: number, length: number, value: number) => put(at, value.toString(8).padStart(length - 1, "0"));
  const data = Buffer.from(member.data ?? "");
  put(0, Buffer.from(member.name).subarray(0, 100));
  octal(100, 8, member.mode ?? 0o644);
  octal(108, 8, member.uid ?? 0);
  octal(116, 8, member.gid ?? 0);
  octal(124, 12, member.size ?? data.length);
  octal(136, 12, member.mtime ?? 0);
  put(156, member.type ?? "0");
  put(157, Buffer.from(member.link ?? "").subarray(0, 100));
  if ((member.magic ?? "ustar") === "ustar") put(257, "ustar\x0000");
  if (member.magic === "gnu") put(257, "ustar  \0");
  if (member.device !== undefined) {
    octal(329, 8, member.device[0]);
    octal(337, 8, member.device[1]);
  }
  if (member.prefix !== undefined) put(345, member.prefix);
  member.patch?.(block);
  return sign(block);
}

/** Puts the right checksum in. */
export function sign(block: Buffer): Buffer {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

export function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc(-data.length & 511)]);
}

export function record(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), Buffer.from(value), Buffer.from("\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length++;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

export function paxHeader(records: Record<string, string | Buffer>, type = "x"): Buffer {
  const data = Buffer.concat(Object.entries(records).map(([key, value]) => record(key, value)));
  return Buffer.concat([header({ name: "PaxHeader", type, data }), padded(data)]);
}

export function member(each: Member): Buffer {
  const parts = [header(each), padded(Buffer.from(each.data ?? ""))];
  if (each.pax !== undefined) parts.unshift(paxHeader(each.pax));
  return Buffer.concat(parts);
}

export const theEnd = Buffer.alloc(1024);

export function archive(...members: (Member | Buffer)[]): Buffer {
  return Buffer.concat([...members.map((each) => (Buffer.isBuffer(each) ? each : member(each))), theEnd]);
}

/** The bytes in chunks of `chunkBytes`. */
export async function* stream(bytes: Buffer, chunkBytes = 65536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}
