/** Frames of protocol/PROTOCOL.md, "Frames": bytes to frames and back. Pure: no stream, no clock. */
import { PyroError } from "../base/error.js";

export const MAX_PAYLOAD = 65_536;
export const MAX_MESSAGE = 1_048_576;
export const MAX_FIELDS = 8_192;
export const MAX_STREAMS = 256;
export const WINDOW = 262_144;
export const MAX_CREDIT = 16_777_216;
export const MAX_DISCARD = 4_194_304;
export const HEADER_BYTES = 8;

export const FrameType = {
  SYNC: 0x01, REQUEST_PART: 0x02, REQUEST: 0x03, SIGNAL: 0x04, RESIZE: 0x05, CANCEL: 0x06,
  DATA_0: 0x10, DATA_1: 0x11, DATA_2: 0x12, END_0: 0x18, END_1: 0x19, END_2: 0x1a,
  CREDIT_0: 0x20, CREDIT_1: 0x21, CREDIT_2: 0x22,
  HELLO: 0x81, STARTED: 0x82, RESULT: 0x83, FAULT: 0x84,
} as const;

interface FrameRule {
  name: string;
  leastBytes: number;
  mostBytes: number;
  /** On stream 0, the connection itself. */
  connection?: true;
}

/** What one side may send, by type. */
export type FrameRules = ReadonlyMap<number, FrameRule>;

export const hostFrames: FrameRules = new Map([
  [FrameType.SYNC, { name: "SYNC", leastBytes: 0, mostBytes: MAX_PAYLOAD, connection: true }],
  [FrameType.REQUEST_PART, { name: "REQUEST_PART", leastBytes: 0, mostBytes: MAX_PAYLOAD }],
  [FrameType.REQUEST, { name: "REQUEST", leastBytes: 0, mostBytes: MAX_PAYLOAD }],
  [FrameType.SIGNAL, { name: "SIGNAL", leastBytes: 2, mostBytes: 2 }],
  [FrameType.RESIZE, { name: "RESIZE", leastBytes: 4, mostBytes: 4 }],
  [FrameType.CANCEL, { name: "CANCEL", leastBytes: 0, mostBytes: 0 }],
  [FrameType.DATA_0, { name: "DATA_0", leastBytes: 1, mostBytes: MAX_PAYLOAD }],
  [FrameType.END_0, { name: "END_0", leastBytes: 0, mostBytes: 0 }],
  [FrameType.CREDIT_1, { name: "CREDIT_1", leastBytes: 4, mostBytes: 4 }],
  [FrameType.CREDIT_2, { name: "CREDIT_2", leastBytes: 4, mostBytes: 4 }],
]);

export const guestFrames: FrameRules = new Map([
  [FrameType.DATA_1, { name: "DATA_1", leastBytes: 1, mostBytes: MAX_PAYLOAD }],
  [FrameType.DATA_2, { name: "DATA_2", leastBytes: 1, mostBytes: MAX_PAYLOAD }],
  [FrameType.END_1, { name: "END_1", leastBytes: 0, mostBytes: 0 }],
  [FrameType.END_2, { name: "END_2", leastBytes: 0, mostBytes: 0 }],
  [FrameType.CREDIT_0, { name: "CREDIT_0", leastBytes: 4, mostBytes: 4 }],
  [FrameType.HELLO, { name: "HELLO", leastBytes: 0, mostBytes: MAX_PAYLOAD, connection: true }],
  [FrameType.STARTED, { name: "STARTED", leastBytes: 4, mostBytes: 4 }],
  [FrameType.RESULT, { name: "RESULT", leastBytes: 0, mostBytes: MAX_PAYLOAD }],
  [FrameType.FAULT, { name: "FAULT", leastBytes: 0, mostBytes: MAX_PAYLOAD, connection: true }],
]);

export interface Frame {
  type: number;
  stream: number;
  /** A view into what was read, or a buffer of its own where the frame came in pieces. */
  payload: Buffer;
}

export function encodeHeader(type: number, stream: number, payloadBytes: number): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header.writeUInt32LE((type | (payloadBytes << 8)) >>> 0, 0);
  header.writeUInt32LE(stream, 4);
  return header;
}

export function encodeFrame(type: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([encodeHeader(type, stream, payload.length), payload]);
}

/**
 * Cuts bytes into frames. Each byte is copied at most once, and only where a frame is split over chunks; what is kept
 * between chunks is at most one frame.
 */
export class FrameDecoder {
  readonly #rules: FrameRules;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #frame: Frame | undefined;
  #payloadBytes = 0;

  constructor(rules: FrameRules) {
    this.#rules = rules;
  }

  /** Calls `onFrame` for every frame that `chunk` completes. Throws PROTOCOL on what this side may not send; then it is of no more use. */
  push(chunk: Buffer, onFrame: (frame: Frame) => void): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#frame !== undefined) {
        at += this.#fill(chunk, at);
        if (this.#payloadBytes < this.#frame.payload.length) return;
        const frame = this.#frame;
        this.#frame = undefined;
        onFrame(frame);
        continue;
      }
      let head = chunk;
      let headAt = at;
      if (this.#headerBytes > 0 || chunk.length - at < HEADER_BYTES) {
        const copied = chunk.copy(this.#header, this.#headerBytes, at, at + HEADER_BYTES - this.#headerBytes);
        if (this.#headerBytes === 0) this.#checkType(chunk[at]!);
        this.#headerBytes += copied;
        at += copied;
        if (this.#headerBytes < HEADER_BYTES) return;
        this.#headerBytes = 0;
        head = this.#header;
        headAt = 0;
      } else {
        at += HEADER_BYTES;
      }
      const word = head.readUInt32LE(headAt);
      const type = word & 0xff;
      const length = word >>> 8;
      const stream = head.readUInt32LE(headAt + 4);
      this.#check(type, length, stream);
      if (chunk.length - at >= length) {
        onFrame({ type, stream, payload: chunk.subarray(at, at + length) });
        at += length;
      } else {
        this.#frame = { type, stream, payload: Buffer.allocUnsafeSlow(length) };
        this.#payloadBytes = 0;
      }
    }
  }

  #fill(chunk: Buffer, at: number): number {
    const copied = chunk.copy(this.#frame!.payload, this.#payloadBytes, at);
    this.#payloadBytes += copied;
    return copied;
  }

  #checkType(type: number): FrameRule {
    const rule = this.#rules.get(type);
    if (rule === undefined) throw violation(`a frame of type 0x${type.toString(16).padStart(2, "0")}, which it may not send`);
    return rule;
  }

  #check(type: number, length: number, stream: number): void {
    const rule = this.#checkType(type);
    if (length > MAX_PAYLOAD) throw violation(`a payload of ${length} bytes, over ${MAX_PAYLOAD} (MAX_PAYLOAD)`);
    if (length < rule.leastBytes || length > rule.mostBytes) throw violation(`${rule.name} with ${length} bytes`);
    if ((stream === 0) !== (rule.connection === true)) throw violation(`${rule.name} on stream ${stream}`);
  }
}

/** The error for anything that the protocol does not allow the guest. `what` finishes "The guest sent …". */
export function violation(what: string): PyroError {
  return new PyroError("PROTOCOL", `The guest sent ${what}.`, { hint: "The guest can't be trusted any more; start a new VM." });
}
