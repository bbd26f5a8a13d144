/** Many streams over one connection: gives out ids, passes frames to their streams, and ends them all together, with the first cause. */
import type { Duplex } from "node:stream";
import { PyroError, toPyroError } from "../base/error.js";
import { FrameDecoder, FrameType, MAX_PAYLOAD, MAX_STREAMS, encodeFrame, encodeHeader, guestFrames, violation, type Frame } from "./codec.js";
import { encodeMessage, harmlessText, parseMessage, type Field } from "./message.js";
import type { Input } from "./input.js";
import type { Output } from "./output.js";
import { GuestStream, type StreamShape } from "./stream.js";

/** Below this a frame is written in one piece: copying is cheaper than two writes. */
const COPY_BELOW_BYTES = 4096;

export class Mux {
  /** Settles once: with what ended the connection, or undefined where that was us. */
  readonly closed: Promise<PyroError | undefined>;
  #settleClosed!: (cause: PyroError | undefined) => void;
  readonly #transport: Duplex;
  readonly #decoder = new FrameDecoder(guestFrames);
  readonly #streams = new Map<number, GuestStream>();
  readonly #waiting = new Set<Input | Output>();
  #lastId = 0;
  #end: { cause: PyroError | undefined } | undefined;

  /** `transport` has just said HELLO; `rest` is what came behind it. */
  constructor(transport: Duplex, rest: Buffer) {
    this.#transport = transport;
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
    transport.on("data", (chunk: Buffer) => this.#receive(chunk));
    transport.on("drain", () => this.#drain());
    transport.on("end", () => this.fail(lost("its end of the channel was closed")));
    transport.on("close", () => this.fail(lost("the channel was closed")));
    transport.on("error", (error: Error) => this.fail(lost(error.message, error)));
    if (rest.length > 0) this.#receive(rest);
  }

  /** Sends a request on a new stream. Throws INVALID_ARGUMENT, INVALID_STATE, or what ended the channel. */
  open(fields: readonly Field[], shape: StreamShape): GuestStream {
    if (this.#end !== undefined) throw this.#end.cause ?? closedByUs();
    if (this.#streams.size >= MAX_STREAMS) throw new PyroError("INVALID_STATE", `${MAX_STREAMS} requests (MAX_STREAMS) are under way on this channel; wait for one to end.`);
    if (this.#lastId === 0xffff_ffff) throw new PyroError("INVALID_STATE", "This channel has used all its stream ids; open another one.");
    const message = encodeMessage(fields);
    const id = ++this.#lastId;
    const stream = new GuestStream(
      {
        send: (type, payload) => this.#send(type, id, payload),
        sendData: (payload, done) => this.#send(FrameType.DATA_0, id, payload, done),
        readyFor: (waiter) => this.#readyFor(waiter),
      },
      shape,
    );
    this.#streams.set(id, stream);
    let at = 0;
    for (; message.length - at > MAX_PAYLOAD; at += MAX_PAYLOAD) this.#send(FrameType.REQUEST_PART, id, message.subarray(at, at + MAX_PAYLOAD));
    this.#send(FrameType.REQUEST, id, message.subarray(at));
    return stream;
  }

  /** Ends the connection and everything on it. Later causes change nothing. */
  fail(cause: PyroError | undefined): void {
    if (this.#end !== undefined) return;
    this.#end = { cause };
    this.#waiting.clear();
    for (const stream of this.#streams.values()) stream.fail(cause ?? closedByUs());
    this.#streams.clear();
    this.#transport.destroy();
    this.#settleClosed(cause);
  }

  #receive(chunk: Buffer): void {
    if (this.#end !== undefined) return;
    try {
      this.#decoder.push(chunk, (frame) => this.#dispatch(frame));
    } catch (error) {
      this.fail(toPyroError(error));
    }
  }

  #dispatch(frame: Frame): void {
    if (this.#end !== undefined) return;
    if (frame.type === FrameType.HELLO) throw violation("HELLO twice");
    if (frame.type === FrameType.FAULT) {
      const text = parseMessage(frame.payload, "FAULT", [], ["MESSAGE"]).get("MESSAGE");
      throw new PyroError("PROTOCOL", `The guest ended the channel: ${text === undefined ? "it gave no reason" : harmlessText(text)}`);
    }
    const stream = this.#streams.get(frame.stream);
    if (stream === undefined) throw violation(`a frame of type 0x${frame.type.toString(16)} for stream ${frame.stream}, which is not open`);
    if (frame.type === FrameType.RESULT) {
      // Checked first: a wrong RESULT must find its stream still here, to be ended with the rest.
      const settle = stream.checkResult(frame.payload);
      this.#streams.delete(frame.stream);
      settle();
    } else {
      stream.receive(frame);
    }
  }

  #send(type: number, id: number, payload: Uint8Array, done?: () => void): void {
    const transport = this.#transport;
    if (this.#end !== undefined || transport.destroyed) return;
    const written = done === undefined ? undefined : () => done();
    if (payload.length < COPY_BELOW_BYTES) {
      transport.write(encodeFrame(type, id, payload), written);
      return;
    }
    transport.cork();
    transport.write(encodeHeader(type, id, payload.length));
    transport.write(payload, written);
    transport.uncork();
  }

  #readyFor(waiter: Input | Output): boolean {
    if (this.#end !== undefined) return false;
    if (!this.#transport.writableNeedDrain) return true;
    this.#waiting.add(waiter);
    return false;
  }

  #drain(): void {
    // Whoever has more to send than fits goes to the end of the line by itself.
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const each of waiting) each.pump();
  }
}

function lost(why: string, cause?: unknown): PyroError {
  return new PyroError("GUEST_LOST", `The guest is gone: ${why}.`, { hint: "The VM ended or crashed; its console tells more.", cause });
}

function closedByUs(): PyroError {
  return new PyroError("CANCELLED", "The channel was closed.");
}
