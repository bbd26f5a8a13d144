/** Files of the guest: read, write, stat, list. Paths are the guest's, strings as UTF-8 or bytes as they are. */
import { Buffer } from "node:buffer";
import type { Readable, Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { cancelled, checkSignal, whenAborted } from "../base/deadline.js";
import { violation } from "./codec.js";
import { STAT_BYTES, invalid, u32, u64, u8, type Field, type TagName } from "./message.js";
import type { Mux } from "./mux.js";
import type { GuestStream, StreamResult } from "./stream.js";
import { answerOf, failureError } from "./answer.js";

export type GuestPath = string | Buffer;

export interface ReadFileOptions {
  /** Where to begin, bytes. */
  offset?: number;
  /** Bytes at most; up to the end when left out. */
  length?: number;
  signal?: AbortSignal;
}

export interface WriteFileOptions {
  /** Permission bits, 0 to 0o7777. */
  mode?: number;
  /** Write behind what is there, in place; otherwise the file is replaced at once when all has arrived. */
  append?: boolean;
  makeParents?: boolean;
  /** Fail with EXISTS if it exists. */
  exclusive?: boolean;
  signal?: AbortSignal;
}

export type FileType = "file" | "directory" | "link" | "fifo" | "socket" | "character" | "block" | "unknown";

export interface GuestStat {
  type: FileType;
  /** Permission bits with set-user-id, set-group-id and sticky. */
  mode: number;
  uid: number;
  gid: number;
  links: number;
  sizeBytes: bigint;
  mtimeNs: bigint;
  /** Of a device file. */
  device: { major: number; minor: number };
  /** Where a link points: bytes as they are. */
  target?: Buffer;
}

export interface GuestEntry {
  name: Buffer;
  stat: GuestStat;
}

/** Most bytes of one listing, about 800,000 short names. */
export const MAX_LISTING = 67_108_864;

/** The file's bytes; breaks with NOT_FOUND, DENIED, INVALID_STATE and what ends the channel. Destroying it stops the reading. */
export function readFile(mux: Mux, path: GuestPath, options: ReadFileOptions = {}): Readable {
  checkSignal(options.signal);
  const fields: Field[] = [["KIND", u8(2)], ["PATH", pathBytes(path)]];
  if (options.offset !== undefined) fields.push(["OFFSET", u64(size("offset", options.offset))]);
  if (options.length !== undefined) fields.push(["LENGTH", u64(size("length", options.length))]);
  return outputOf(mux, fields, `read ${path.toString()}`, options.signal).outputs[0]!.readable;
}

export async function writeFile(mux: Mux, path: GuestPath, content: AsyncIterable<Uint8Array> | Uint8Array, options: WriteFileOptions = {}): Promise<void> {
  checkSignal(options.signal);
  if (!(content instanceof Uint8Array) && typeof (content as AsyncIterable<Uint8Array> | undefined)?.[Symbol.asyncIterator] !== "function") throw invalid("The content is neither text nor bytes nor a stream of them.");
  const fields: Field[] = [["KIND", u8(3)], ["PATH", pathBytes(path)]];
  if (options.mode !== undefined) fields.push(["MODE", modeBytes(options.mode)]);
  fields.push(["FLAGS", u32((options.append ? 1 : 0) | (options.makeParents ? 2 : 0) | (options.exclusive ? 4 : 0))]);
  const stream = mux.open(fields, { result: [], input: true });
  await writeContent(stream, content instanceof Uint8Array ? [content] : content, (sent) => answerOf(stream, `write ${path.toString()}`, options.signal, sent));
}

/** Sends `content` until `answer`, which is given the sending as the work beside it, has settled: a result before the end is a failure, and then the rest is of no use. */
export async function writeContent<T>(stream: GuestStream, content: Iterable<Uint8Array> | AsyncIterable<Uint8Array>, answer: (sent: Promise<void>) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const sent = send(stream, content, stop.signal).catch((error: unknown) => {
    // The content itself broke: nothing of it may be left in the guest.
    stream.cancel();
    throw error;
  });
  try {
    return await answer(sent);
  } finally {
    stop.abort();
  }
}

export async function stat(mux: Mux, path: GuestPath, options: { follow?: boolean; signal?: AbortSignal } = {}): Promise<GuestStat> {
  const stream = mux.open([["KIND", u8(4)], ["PATH", pathBytes(path)], ["FLAGS", u32(options.follow ? 1 : 0)]], {
    result: ["STAT"],
    resultOptional: ["TARGET"],
    checkFields: (fields) => {
      if (parseStat(fields.get("STAT")!).type !== "link" && fields.has("TARGET")) throw violation("TARGET of what is no link");
    },
  });
  const fields = await answerOf(stream, `stat ${path.toString()}`, options.signal);
  const target = fields.get("TARGET");
  return { ...parseStat(fields.get("STAT")!), ...(target === undefined ? {} : { target: Buffer.from(target) }) };
}

/** Unsorted, without `.` and `..`. INVALID_STATE above MAX_LISTING bytes. */
export async function list(mux: Mux, path: GuestPath, options: { signal?: AbortSignal } = {}): Promise<GuestEntry[]> {
  checkSignal(options.signal);
  const { readable } = outputOf(mux, [["KIND", u8(5)], ["PATH", pathBytes(path)]], `list ${path.toString()}`, options.signal).outputs[0]!;
  const parts: Buffer[] = [];
  let total = 0;
  for await (const part of readable as AsyncIterable<Buffer>) {
    total += part.length;
    if (total > MAX_LISTING) throw new PyroError("INVALID_STATE", `The listing of ${path.toString()} is over ${MAX_LISTING} bytes (MAX_LISTING) long.`);
    parts.push(part);
  }
  return parseListing(Buffer.concat(parts, total));
}

/** Records of protocol/PROTOCOL.md, "Requests". Throws PROTOCOL. */
export function parseListing(bytes: Buffer): GuestEntry[] {
  const entries: GuestEntry[] = [];
  let at = 0;
  while (at < bytes.length) {
    const length = bytes.length - at < 2 ? Infinity : bytes.readUInt16LE(at);
    if (bytes.length - at - 2 < length + STAT_BYTES) throw violation("a listing that breaks off");
    const name = bytes.subarray(at + 2, at + 2 + length);
    // A name that is a path would lead whoever copies the directory somewhere else.
    const text = name.toString("latin1");
    if (text === "" || text === "." || text === ".." || text.includes("/") || text.includes("\0")) throw violation("a listing with a name that no file can have");
    entries.push({ name: Buffer.from(name), stat: parseStat(bytes.subarray(at + 2 + length, at + 2 + length + STAT_BYTES)) });
    at += 2 + length + STAT_BYTES;
  }
  return entries;
}

const types: Readonly<Record<number, FileType>> = { 0o1: "fifo", 0o2: "character", 0o4: "directory", 0o6: "block", 0o10: "file", 0o12: "link", 0o14: "socket" };

/** Throws PROTOCOL. */
export function parseStat(bytes: Buffer): GuestStat {
  const mode = bytes.readUInt32LE(0);
  const nanoseconds = bytes.readUInt32LE(32);
  if (nanoseconds > 999_999_999) throw violation(`STAT with ${nanoseconds} nanoseconds`);
  if (bytes.readUInt32LE(44) !== 0) throw violation("STAT that does not end with zero");
  return {
    type: types[mode >>> 12] ?? "unknown",
    mode: mode & 0o7777,
    uid: bytes.readUInt32LE(4),
    gid: bytes.readUInt32LE(8),
    links: bytes.readUInt32LE(12),
    sizeBytes: bytes.readBigUInt64LE(16),
    mtimeNs: bytes.readBigInt64LE(24) * 1_000_000_000n + BigInt(nanoseconds),
    device: { major: bytes.readUInt32LE(36), minor: bytes.readUInt32LE(40) },
  };
}

/** A request whose answer is content; `what` finishes "The guest could not …". */
export function outputOf(mux: Mux, fields: Field[], what: string, signal: AbortSignal | undefined, result: readonly TagName[] = ["BYTES_1"]): GuestStream {
  const stream: GuestStream = mux.open(fields, { result, outputs: 1, onOutputAbandoned: () => stream.cancel(), outputError: (end) => failureOf(end, what) });
  const output = stream.outputs[0]!.readable;
  if (signal !== undefined) {
    output.once("close", whenAborted(signal, () => output.destroy(cancelled(signal))));
  }
  return stream;
}

function failureOf(result: StreamResult, what: string): PyroError | undefined {
  return "failure" in result ? failureError(result.failure, what) : undefined;
}

async function send(stream: GuestStream, content: Iterable<Uint8Array> | AsyncIterable<Uint8Array>, stop: AbortSignal): Promise<void> {
  const { writable } = stream.input!;
  for await (const part of content) {
    if (stop.aborted || writable.destroyed) return;
    const chunk = Buffer.from(part.buffer, part.byteOffset, part.byteLength);
    if (!writable.write(chunk)) await room(writable, stop);
  }
  if (!stop.aborted && !writable.destroyed) writable.end();
}

/** Resolves when `writable` takes more, or never will. Leaves no listener behind: a large file waits here thousands of times. */
function room(writable: Writable, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      writable.off("drain", done).off("close", done);
      forget();
      resolve();
    };
    writable.on("drain", done).on("close", done);
    const forget = whenAborted(stop, done);
    if (stop.aborted || writable.closed) done();
  });
}

export function modeBytes(mode: number): Buffer {
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) throw invalid(`The mode is ${mode}; 0 to 0o7777 are possible.`);
  return u32(mode);
}

export function pathBytes(path: GuestPath): Buffer {
  if (typeof path === "string") return Buffer.from(path);
  if (!Buffer.isBuffer(path)) throw invalid("A path is neither a string nor a Buffer.");
  return path;
}

function size(name: string, value: number): bigint {
  if (!Number.isSafeInteger(value) || value < 0) throw invalid(`${name} is ${value}; it must be a whole number of bytes, 0 or more.`);
  return BigInt(value);
}
