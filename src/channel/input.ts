/** What the host sends on DATA_0 of one stream, as a Node stream. Never sends more than the guest gave credit for. */
import { Writable } from "node:stream";
import type { PyroError } from "../base/error.js";
import { MAX_CREDIT, MAX_PAYLOAD, WINDOW, violation } from "./codec.js";

export interface InputPort {
  /** False while the connection's own queue is full; then `pump` is called again when it is not. */
  readyFor(input: Input): boolean;
  sendData(payload: Buffer, done?: () => void): void;
  sendEnd(): void;
}

export class Input {
  readonly writable: Writable;
  /** END_0 was sent. */
  ended = false;
  readonly #port: InputPort;
  #credit = WINDOW;
  #pending: Buffer | undefined;
  #done: () => void = () => {};
  #closed = false;

  constructor(port: InputPort) {
    this.#port = port;
    this.writable = new Writable({
      highWaterMark: MAX_PAYLOAD,
      write: (chunk: Buffer, _encoding, callback) => {
        if (this.#closed || chunk.length === 0) return callback();
        this.#pending = chunk;
        this.#done = () => callback();
        this.pump();
      },
      final: (callback) => {
        this.#end();
        callback();
      },
      destroy: (error, callback) => {
        this.#end();
        callback(error);
      },
    });
    this.writable.on("error", () => {});
  }

  /** A CREDIT_0 frame. Throws PROTOCOL. */
  addCredit(bytes: number): void {
    if (bytes < 1 || bytes > MAX_CREDIT || this.#credit + bytes > MAX_CREDIT) throw violation(`credit of ${bytes} bytes on top of ${this.#credit}, outside 1 to ${MAX_CREDIT} (MAX_CREDIT)`);
    this.#credit += bytes;
    this.pump();
  }

  /** Sends as long as there is something to send, credit for it and room. */
  pump(): void {
    while (this.#pending !== undefined && this.#credit > 0 && !this.#closed && this.#port.readyFor(this)) {
      const length = Math.min(this.#pending.length, this.#credit, MAX_PAYLOAD);
      const payload = this.#pending.subarray(0, length);
      this.#credit -= length;
      if (length < this.#pending.length) {
        this.#pending = this.#pending.subarray(length);
        this.#port.sendData(payload);
      } else {
        // The writer gets its buffer back only when the connection is done with it.
        this.#pending = undefined;
        this.#port.sendData(payload, this.#done);
      }
    }
  }

  /** The guest takes no more: what is not sent is dropped. With an error for the writer, or quietly. */
  close(error?: PyroError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#pending = undefined;
    this.writable.destroy(error);
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#pending = undefined;
    this.ended = true;
    this.#port.sendEnd();
  }
}
