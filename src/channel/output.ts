/** What the guest sends on DATA_1 or DATA_2 of one stream, as a Node stream. Credit goes back as the reader takes bytes. */
import { Readable } from "node:stream";
import type { PyroError } from "../base/error.js";
import { WINDOW, violation } from "./codec.js";

/** Smaller frames are copied together: kept one by one, each would cost its object and hold on to the chunk it came in. */
const COPY_BELOW_BYTES = 16_384;
const BLOCK_BYTES = 65_536;
/** Credit goes back in lots of this size, so that a reader of single bytes doesn't cost a frame for each. */
const CREDIT_LOT_BYTES = WINDOW / 4;

export interface OutputOptions {
  name: string;
  giveCredit: (bytes: number) => void;
  /** Whether the connection takes more to send now. If not, the waiter is pumped when it does. */
  readyFor: (waiter: Output) => boolean;
  /** The reader went away before the end. From then on everything is dropped, and credit given at once. */
  onAbandoned?: () => void;
  /** END is the end of the readable; otherwise it waits for `finish`, as an error may come after END. */
  endsAtEnd: boolean;
}

export class Output {
  readonly readable: Readable;
  receivedBytes = 0;
  ended = false;
  readonly #options: OutputOptions;
  #queue: Buffer[] = [];
  /** The last of the queue while more can be copied behind it: a block and how much of it is full. */
  #block: Buffer | undefined;
  #blockBytes = 0;
  #senderCredit = WINDOW;
  #owed = 0;
  #wanted = false;
  #complete = false;
  #closed = false;

  constructor(options: OutputOptions) {
    this.#options = options;
    this.readable = new Readable({
      // One byte: the queue here is the buffer, and the window is its bound.
      highWaterMark: 1,
      read: () => {
        this.#wanted = true;
        this.#deliver();
      },
      destroy: (error, callback) => {
        this.#abandon();
        callback(error);
      },
    });
    // Whoever listens hears of an error; whoever doesn't must not be killed by it.
    this.readable.on("error", () => {});
  }

  /** A DATA frame. Throws PROTOCOL. */
  take(payload: Buffer): void {
    const { name } = this.#options;
    if (this.ended) throw violation(`DATA of ${name} after its END`);
    if (payload.length > this.#senderCredit) throw violation(`${payload.length} bytes of ${name} with a credit of ${this.#senderCredit}`);
    this.#senderCredit -= payload.length;
    this.receivedBytes += payload.length;
    if (this.#closed) return this.#passedOn(payload.length);
    this.#enqueue(payload);
    this.#deliver();
  }

  /** An END frame. Throws PROTOCOL. */
  end(): void {
    if (this.ended) throw violation(`END of ${this.#options.name} twice`);
    this.ended = true;
    if (this.#options.endsAtEnd) this.finish();
  }

  /** Nothing more will come: the readable ends after what is queued. */
  finish(): void {
    this.ended = true;
    this.#complete = true;
    if (!this.#closed) this.#deliver();
  }

  /** The readable breaks with `error`, unless all of it had been received. */
  fail(error: PyroError): void {
    if (!this.#complete) this.readable.destroy(error);
  }

  #enqueue(payload: Buffer): void {
    if (payload.length >= COPY_BELOW_BYTES) {
      this.#sealBlock();
      this.#queue.push(payload);
      return;
    }
    // Nothing waits and it is wanted: it is gone in a moment, so no block is needed.
    if (this.#wanted && this.#queue.length === 0 && this.#block === undefined) {
      this.#queue.push(payload);
      return;
    }
    if (this.#block !== undefined && this.#blockBytes + payload.length > BLOCK_BYTES) this.#sealBlock();
    this.#block ??= Buffer.allocUnsafeSlow(BLOCK_BYTES);
    this.#blockBytes += payload.copy(this.#block, this.#blockBytes);
  }

  #sealBlock(): void {
    if (this.#block === undefined) return;
    this.#queue.push(this.#block.subarray(0, this.#blockBytes));
    this.#block = undefined;
    this.#blockBytes = 0;
  }

  #deliver(): void {
    while (this.#wanted && !this.#closed) {
      if (this.#queue.length === 0) this.#sealBlock();
      const next = this.#queue.shift();
      if (next === undefined) break;
      this.#wanted = false;
      const more = this.readable.push(next);
      this.#wanted ||= more;
      this.#passedOn(next.length);
    }
    if (this.#complete && !this.#closed && this.#queue.length === 0 && this.#block === undefined) {
      this.#closed = true;
      this.readable.push(null);
    }
  }

  #passedOn(bytes: number): void {
    this.#owed += bytes;
    this.pump();
  }

  /** Gives back what is owed. A guest that sends and never reads would otherwise fill our memory with credit it doesn't take. */
  pump(): void {
    if (this.ended || this.#owed < CREDIT_LOT_BYTES || !this.#options.readyFor(this)) return;
    const credit = this.#owed;
    this.#owed = 0;
    this.#senderCredit += credit;
    this.#options.giveCredit(credit);
  }

  #abandon(): void {
    if (this.#closed) return;
    this.#closed = true;
    const dropped = this.#queue.reduce((sum, block) => sum + block.length, 0) + this.#blockBytes;
    this.#queue = [];
    this.#block = undefined;
    this.#blockBytes = 0;
    this.#passedOn(dropped);
    if (!this.ended) this.#options.onAbandoned?.();
  }
}
