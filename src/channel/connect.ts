/** The beginning of a connection: padding, SYNC, and whatever an earlier client left behind, until the HELLO that answers us. */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { PyroError, toPyroError } from "../base/error.js";
import { cancelled, whenAborted } from "../base/deadline.js";
import { FrameType, HEADER_BYTES, MAX_DISCARD, MAX_PAYLOAD, encodeFrame } from "./codec.js";
import { encodeMessage, harmlessText, parseMessage, u16, type Fields } from "./message.js";

export const PROTOCOL_VERSION = 1;

export interface ConnectOptions {
  /** Nobody used this port before: no padding is sent, and nothing but HELLO or FAULT is expected. */
  fresh?: boolean;
  /** Without it the wait ends only by `signal`, or with the connection. */
  deadlineMs?: number;
  signal?: AbortSignal;
}

export interface Hello {
  version: number;
  /** The guest kernel's release; the guest's word, harmless for a terminal. */
  kernel: string;
  /** The guest program's own version; likewise. */
  program: string;
}

/** HELLO's payload at its longest: VERSION, NONCE, KERNEL, PROGRAM and the end mark. */
const MAX_HELLO = 7 + 21 + 69 + 69 + 1;
/** FAULT's payload at its longest. */
const MAX_FAULT = 5 + 1024 + 1;

/**
 * Calls `takeOver` with the guest's HELLO and what came behind it, before anything else can happen on the stream. Rejects with TIMEOUT, CANCELLED, GUEST_LOST or
 * PROTOCOL; the stream is destroyed then.
 */
export function shakeHands<T>(transport: Duplex, options: ConnectOptions, takeOver: (hello: Hello, rest: Buffer) => T): Promise<T> {
  return new Promise((resolve, reject) => {
    const nonce = randomBytes(16);
    const search = new HelloSearch(nonce, options.fresh === true);
    let timer: NodeJS.Timeout | undefined;
    let forget = () => {};
    const free = () => {
      clearTimeout(timer);
      forget();
      transport.off("data", onData).off("end", onEnd).off("close", onEnd).off("error", onError);
    };
    const fail = (error: PyroError) => {
      free();
      transport.on("error", () => {}); // of its destruction; the cause is known
      transport.destroy();
      reject(error);
    };
    const onData = (chunk: Buffer) => {
      try {
        const found = search.push(chunk);
        if (found === undefined) return;
        free();
        resolve(takeOver(found.hello, found.rest));
      } catch (error) {
        fail(toPyroError(error));
      }
    };
    const onEnd = () => fail(new PyroError("GUEST_LOST", "The guest closed the channel before it said hello.", { hint: "Its console tells more." }));
    const onError = (error: Error) => fail(new PyroError("GUEST_LOST", `The channel broke before the guest said hello: ${error.message}`, { cause: error }));
    const onAbort = () => fail(cancelled(options.signal));
    if (options.signal?.aborted) return onAbort();
    forget = whenAborted(options.signal, onAbort);
    if (options.deadlineMs !== undefined) {
      const seconds = options.deadlineMs / 1000;
      timer = setTimeout(() => fail(new PyroError("TIMEOUT", `The guest did not say hello within ${seconds} s.${search.refusal()}`)), options.deadlineMs);
    }
    if (transport.destroyed) return onEnd();
    transport.on("data", onData).on("end", onEnd).on("close", onEnd).on("error", onError);
    transport.resume();
    if (options.fresh !== true) transport.write(Buffer.alloc(MAX_PAYLOAD + HEADER_BYTES));
    transport.write(encodeSync(nonce));
  });
}

export function encodeSync(nonce: Uint8Array): Buffer {
  const message = encodeMessage([
    ["VERSION_MIN", u16(PROTOCOL_VERSION)],
    ["VERSION_MAX", u16(PROTOCOL_VERSION)],
    ["NONCE", nonce],
  ]);
  return encodeFrame(FrameType.SYNC, 0, message);
}

/**
 * Finds the HELLO with our nonce in bytes that may begin anywhere, as an earlier client's output may have been cut in the middle
 * of a frame. Looks at every position; nobody who has not seen the nonce can write a HELLO that fits.
 */
export class HelloSearch {
  readonly #nonce: Buffer;
  readonly #fresh: boolean;
  #kept: Buffer = Buffer.alloc(0);
  #discarded = 0;
  #fault: PyroError | undefined;

  constructor(nonce: Buffer, fresh: boolean) {
    this.#nonce = nonce;
    this.#fresh = fresh;
  }

  /** Throws PROTOCOL when too much came, on a HELLO in a version we don't know, and on a FAULT where it can only be meant for us. */
  push(chunk: Buffer): { hello: Hello; rest: Buffer } | undefined {
    // At most one HELLO's or FAULT's worth is kept, so this stays cheap also for single bytes.
    const bytes = this.#kept.length === 0 ? chunk : Buffer.concat([this.#kept, chunk]);
    let at = 0;
    for (; at < bytes.length; at++) {
      const type = bytes[at];
      if (type === FrameType.HELLO || type === FrameType.FAULT) {
        const payload = payloadAt(bytes, at, type === FrameType.HELLO ? MAX_HELLO : MAX_FAULT);
        if (payload === "unfinished") break;
        if (payload !== undefined && type === FrameType.HELLO) {
          const hello = this.#readHello(payload);
          if (hello !== undefined) return { hello, rest: bytes.subarray(at + HEADER_BYTES + payload.length) };
        } else if (payload !== undefined) {
          this.#readFault(payload);
        }
      }
      if (this.#discarded + at + 1 > MAX_DISCARD) throw new PyroError("PROTOCOL", `The guest sent over ${MAX_DISCARD} bytes (MAX_DISCARD) and no hello.${this.refusal()}`);
    }
    this.#discarded += at;
    this.#kept = Buffer.from(bytes.subarray(at));
    return undefined;
  }

  /** For an error's end: what the guest may have answered instead of HELLO. */
  refusal(): string {
    return this.#fault === undefined ? "" : ` It said: ${this.#fault.message}`;
  }

  #readHello(payload: Buffer): Hello | undefined {
    const fields = parsed(payload, ["VERSION", "NONCE", "KERNEL", "PROGRAM"]);
    if (fields === undefined || !fields.get("NONCE")!.equals(this.#nonce)) return undefined;
    const version = fields.get("VERSION")!.readUInt16LE();
    if (version !== PROTOCOL_VERSION) throw new PyroError("PROTOCOL", `The guest speaks version ${version} of the channel; this pyro speaks ${PROTOCOL_VERSION}.`);
    return { version, kernel: harmlessText(fields.get("KERNEL")!), program: harmlessText(fields.get("PROGRAM")!) };
  }

  #readFault(payload: Buffer): void {
    const fields = parsed(payload, ["MESSAGE"]);
    if (fields === undefined) return;
    this.#fault = new PyroError("PROTOCOL", `The guest refused the channel: ${harmlessText(fields.get("MESSAGE")!)}`);
    // On a used port it may have been the last client's; then it is only remembered.
    if (this.#fresh) throw this.#fault;
  }
}

/** The payload of a frame that may begin here; undefined where none can. */
function payloadAt(bytes: Buffer, at: number, most: number): Buffer | "unfinished" | undefined {
  const have = bytes.length - at;
  if (have < HEADER_BYTES) return "unfinished";
  const length = bytes.readUInt32LE(at) >>> 8;
  if (length > most || bytes.readUInt32LE(at + 4) !== 0) return undefined;
  return have < HEADER_BYTES + length ? "unfinished" : bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length);
}

function parsed(payload: Buffer, required: Parameters<typeof parseMessage>[2]): Fields | undefined {
  try {
    return parseMessage(payload, "HELLO", required);
  } catch {
    return undefined;
  }
}
