/** Messages of protocol/PROTOCOL.md, "Messages": lists of tagged fields and an end mark. */
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { MAX_FIELDS, MAX_MESSAGE, violation } from "./codec.js";

export const Tag = {
  VERSION_MIN: 0x01, VERSION_MAX: 0x02, VERSION: 0x03, NONCE: 0x04, KERNEL: 0x05, PROGRAM: 0x06, MESSAGE: 0x07, KIND: 0x08,
  ARG: 0x10, SHELL: 0x11, ENV: 0x12, CWD: 0x13, USER: 0x14, STDIN: 0x15, TTY: 0x16,
  JOB: 0x17, SIGNAL: 0x18, SCOPE: 0x19,
  PATH: 0x20, OFFSET: 0x21, LENGTH: 0x22, MODE: 0x23, FLAGS: 0x24, TO: 0x25, UID: 0x26, GID: 0x27, MTIME: 0x28,
  VM_ID: 0x30, HOSTNAME: 0x31, MACHINE_ID: 0x32, CLOCK: 0x33, ENTROPY: 0x34, NETWORK: 0x35,
  ERRNO: 0x40, STAGE: 0x41, EXIT_CODE: 0x42, EXIT_SIGNAL: 0x43, DURATION: 0x44, BYTES_1: 0x45, BYTES_2: 0x46, STAT: 0x47, TARGET: 0x48,
  DROPPED_1: 0x49, DROPPED_2: 0x4a, ENTRIES: 0x4b, SKIPPED: 0x4c, JOB_LIST: 0x4d,
  MEMORY_TOTAL: 0x50, MEMORY_AVAILABLE: 0x51, DISK_TOTAL: 0x52, DISK_FREE: 0x53, CPU_TIME: 0x54, PROCESSES: 0x55,
} as const;

export type TagName = keyof typeof Tag;

export const STAT_BYTES = 48;
const END_MARK = 0xff;

/** Length in bytes, least and most; `text` has no NUL. */
type Shape = readonly [least: number, most: number, text?: "text"];

const shapes: Readonly<Record<TagName, Shape>> = {
  VERSION_MIN: [2, 2], VERSION_MAX: [2, 2], VERSION: [2, 2], NONCE: [16, 16],
  KERNEL: [1, 64, "text"], PROGRAM: [1, 64, "text"], MESSAGE: [0, 1024, "text"], KIND: [1, 1],
  ARG: [0, 131_071, "text"], SHELL: [1, 131_071, "text"], ENV: [2, 131_071, "text"], CWD: [1, 4095, "text"], USER: [1, 255, "text"],
  STDIN: [1, 1], TTY: [4, 4],
  JOB: [1, 64, "text"], SIGNAL: [1, 1], SCOPE: [1, 1], PATH: [1, 4095, "text"], OFFSET: [8, 8], LENGTH: [8, 8], MODE: [4, 4], FLAGS: [4, 4],
  TO: [1, 4095, "text"], UID: [4, 4], GID: [4, 4], MTIME: [8, 8],
  VM_ID: [1, 64, "text"], HOSTNAME: [1, 63, "text"], MACHINE_ID: [32, 32, "text"], CLOCK: [8, 8], ENTROPY: [32, 4096], NETWORK: [15, 15],
  ERRNO: [4, 4], STAGE: [1, 32, "text"], EXIT_CODE: [1, 1], EXIT_SIGNAL: [1, 1], DURATION: [8, 8], BYTES_1: [8, 8], BYTES_2: [8, 8],
  STAT: [STAT_BYTES, STAT_BYTES], TARGET: [0, 4095, "text"], DROPPED_1: [8, 8], DROPPED_2: [8, 8], ENTRIES: [8, 8], SKIPPED: [8, 8],
  JOB_LIST: [0, 23_104],
  MEMORY_TOTAL: [8, 8], MEMORY_AVAILABLE: [8, 8], DISK_TOTAL: [8, 8], DISK_FREE: [8, 8], CPU_TIME: [8, 8], PROCESSES: [4, 4],
};

const names = new Map<number, TagName>(Object.entries(Tag).map(([name, tag]) => [tag, name as TagName]));

export type Field = readonly [name: TagName, bytes: Uint8Array];

/** Throws INVALID_ARGUMENT where a field or the whole is outside the protocol's limits: the caller's values end up here. */
export function encodeMessage(fields: readonly Field[]): Buffer {
  if (fields.length > MAX_FIELDS) throw invalid(`A request has ${fields.length} arguments and variables; at most ${MAX_FIELDS} (MAX_FIELDS) are possible.`);
  const parts: Uint8Array[] = [];
  let total = 1;
  for (const [name, bytes] of fields) {
    const [least, most, text] = shapes[name];
    if (bytes.length < least || bytes.length > most) {
      throw invalid(`${name} has ${bytes.length} bytes; ${least === most ? `it must have ${least}` : `${least} to ${most} are possible`}.`);
    }
    if (text !== undefined && bytes.includes(0)) throw invalid(`${name} contains a NUL byte, which no argument, variable or path can.`);
    const head = Buffer.allocUnsafe(5);
    head.writeUInt8(Tag[name], 0);
    head.writeUInt32LE(bytes.length, 1);
    parts.push(head, bytes);
    total += 5 + bytes.length;
  }
  if (total > MAX_MESSAGE) throw invalid(`A request is ${total} bytes long; at most ${MAX_MESSAGE} (MAX_MESSAGE) are possible.`);
  parts.push(Buffer.of(END_MARK));
  return Buffer.concat(parts, total);
}

/** The fields of one message, each a view into it. */
export type Fields = ReadonlyMap<TagName, Buffer>;

/** Parses a message whose fields may be `required` and `optional`, each once. Throws PROTOCOL. `what` names it in errors. */
export function parseMessage(bytes: Buffer, what: string, required: readonly TagName[], optional: readonly TagName[] = []): Fields {
  const fields = new Map<TagName, Buffer>();
  let at = 0;
  // Ends: each turn takes 5 bytes or more, and no field may come twice.
  for (;;) {
    if (at >= bytes.length) throw violation(`${what} without an end mark`);
    const tag = bytes[at]!;
    if (tag === END_MARK) break;
    if (bytes.length - at < 5) throw violation(`${what} that breaks off`);
    const length = bytes.readUInt32LE(at + 1);
    const name = names.get(tag);
    if (name === undefined || !(required.includes(name) || optional.includes(name))) {
      throw violation(`${what} with the field ${name ?? `0x${tag.toString(16).padStart(2, "0")}`}, which does not belong to it`);
    }
    if (fields.has(name)) throw violation(`${what} with ${name} twice`);
    const [least, most, text] = shapes[name];
    if (length < least || length > most) throw violation(`${what} with a ${name} of ${length} bytes`);
    if (length > bytes.length - at - 5) throw violation(`${what} that breaks off`);
    const value = bytes.subarray(at + 5, at + 5 + length);
    if (text !== undefined && value.includes(0)) throw violation(`${what} with a NUL byte in ${name}`);
    fields.set(name, value);
    at += 5 + length;
  }
  if (at + 1 !== bytes.length) throw violation(`${what} with bytes after its end mark`);
  for (const name of required) if (!fields.has(name)) throw violation(`${what} without ${name}`);
  return fields;
}

/** Is the field there? For messages whose fields depend on one of them, before they are parsed with the right lists. */
export function hasField(bytes: Buffer, name: TagName): boolean {
  for (let at = 0; bytes.length - at >= 5 && bytes[at] !== END_MARK; at += 5 + bytes.readUInt32LE(at + 1)) {
    if (bytes[at] === Tag[name]) return true;
  }
  return false;
}

/** A line of the guest's that people will see: UTF-8, invalid bytes replaced by U+FFFD, what could steer a terminal written out. */
export function harmlessText(bytes: Buffer): string {
  return harmlessLine(bytes.toString("utf8"), maxTextLength);
}

const maxTextLength = 4096;

export function u8(value: number): Buffer {
  return Buffer.of(value);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function u64(value: bigint): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** Throws INVALID_ARGUMENT outside of 64 bits. */
export function i64(value: bigint): Buffer {
  if (BigInt.asIntN(64, value) !== value) throw invalid(`${value} does not fit into 64 bits.`);
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigInt64LE(value);
  return bytes;
}

export function invalid(message: string): PyroError {
  return new PyroError("INVALID_ARGUMENT", message);
}
