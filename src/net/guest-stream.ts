/** A connection of the guest's as a Node stream, for those who work on its bytes and not on its packets. */
import { Duplex } from "node:stream";
import type { Endpoint } from "./tcp/endpoint.js";

export class GuestStream extends Duplex {
  readonly #endpoint: Endpoint;
  #owed = 0;
  #waiting: (() => void) | undefined;

  constructor(endpoint: Endpoint) {
    super({ allowHalfOpen: true });
    this.#endpoint = endpoint;
  }

  /** Bytes from the guest; kept. */
  feed(bytes: Buffer): void {
    if (this.destroyed) return;
    this.#owed += bytes.length;
    if (this.push(bytes)) this.#pay();
  }

  /** The guest sends nothing more. */
  feedEnd(): void {
    if (!this.destroyed) this.push(null);
  }

  /** The guest has room again. */
  drained(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }

  override _read(): void {
    this.#pay();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#endpoint.send(chunk)) done();
    else this.#waiting = done;
  }

  override _final(done: () => void): void {
    this.#endpoint.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.writableFinished || !this.readableEnded) this.#endpoint.reset();
    done(error);
  }

  #pay(): void {
    const owed = this.#owed;
    this.#owed = 0;
    if (owed > 0) this.#endpoint.consumed(owed);
  }
}
