/** Writes tar archives as a stream: ustar, with extended headers (POSIX.1-2017, pax) for what does not fit. The same entries give the same bytes. */
import { PyroError } from "../base/error.js";
import type { TarEntry, TarEntryType } from "./tar.js";

const blockBytes = 512;
const most7Digits = 0o7777777;
const most11Digits = 0o77777777777;
const typeFlags: Record<TarEntryType, string> = { file: "0", hardlink: "1", symlink: "2", character: "3", block: "4", directory: "5", fifo: "6" };

/** Sparse files have to come without `sparse`, their holes as zeros. */
export async function* writeTar(entries: AsyncIterable<TarEntry>): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const entry of entries) {
    const records = extendedRecords(entry);
    const heads: Buffer[] = [];
    if (records.length > 0) heads.push(header({ path: Buffer.from("pax"), type: "x", mode: 0o644, size: records.length }), records, padding(records.length));
    heads.push(header({ ...entry, type: typeFlags[entry.type] }));
    yield Buffer.concat(heads);
    if (entry.type !== "file") continue;
    let bytes = 0;
    for await (const part of entry.content()) {
      bytes += part.length;
      yield part;
    }
    if (bytes !== entry.size) throw new PyroError("INTERNAL", `A file has ${bytes} bytes and was said to have ${entry.size}.`);
    yield padding(bytes);
  }
  yield Buffer.alloc(2 * blockBytes);
}

/** The records of the header before the header; none where everything fits into the plain one. */
function extendedRecords({ path, linkTarget, uid, gid, size, mtime, xattrs, type }: TarEntry): Buffer {
  const records: Buffer[] = [];
  const add = (key: string, value: string | Buffer) => records.push(record(key, Buffer.from(value as string)));
  if (path.length > 100) add("path", path);
  if (linkTarget !== undefined && linkTarget.length > 100) add("linkpath", linkTarget);
  if (uid > most7Digits) add("uid", `${uid}`);
  if (gid > most7Digits) add("gid", `${gid}`);
  if (size > most11Digits) add("size", `${size}`);
  if (mtime.nanoseconds > 0 || mtime.seconds < 0 || mtime.seconds > most11Digits) add("mtime", printTime(mtime));
  if (type !== "hardlink") for (const [name, value] of [...xattrs].sort(([a], [b]) => (a < b ? -1 : 1))) records.push(record(`SCHILY.xattr.${name}`, value));
  return Buffer.concat(records);
}

/** The nanoseconds count upwards from the second, also before 1970. */
function printTime({ seconds, nanoseconds }: { seconds: number; nanoseconds: number }): string {
  const before = seconds < 0 && nanoseconds > 0;
  const whole = before ? seconds + 1 : seconds;
  const rest = before ? 1_000_000_000 - nanoseconds : nanoseconds;
  return `${seconds < 0 ? "-" : ""}${Math.abs(whole)}${rest === 0 ? "" : `.${`${rest}`.padStart(9, "0")}`}`;
}

/** Its length, which it begins with, counts its own digits. */
function record(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")]);
  let length = rest.length + 1;
  while (`${length}`.length + rest.length !== length) length++;
  return Buffer.concat([Buffer.from(`${length}`), rest]);
}

function header({ path, type, mode, uid = 0, gid = 0, size, mtime, linkTarget, device }: Partial<Omit<TarEntry, "type">> & { path: Buffer; type: string; mode: number; size: number }): Buffer {
  const block = Buffer.alloc(blockBytes);
  const octal = (at: number, bytes: number, value: number) => void block.write(value.toString(8).padStart(bytes - 1, "0"), at, "latin1");
  const seconds = mtime?.seconds ?? 0;
  path.copy(block, 0, 0, 100);
  octal(100, 8, mode);
  octal(108, 8, uid > most7Digits ? 0 : uid);
  octal(116, 8, gid > most7Digits ? 0 : gid);
  octal(124, 12, size > most11Digits ? 0 : size);
  octal(136, 12, seconds < 0 || seconds > most11Digits ? 0 : seconds);
  block.write(type, 156, "latin1");
  linkTarget?.copy(block, 157, 0, 100);
  block.write("ustar\x0000", 257, "latin1");
  octal(329, 8, device?.major ?? 0);
  octal(337, 8, device?.minor ?? 0);
  block.fill(0x20, 148, 156);
  octal(148, 7, block.reduce((sum, byte) => sum + byte, 0));
  block[154] = 0;
  return block;
}

function padding(bytes: number): Buffer {
  return Buffer.alloc(-bytes & (blockBytes - 1));
}
