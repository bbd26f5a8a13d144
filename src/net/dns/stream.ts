/** DNS over TCP (RFC 7766) for the guest: each message behind its length, answered in turn. */
import type { Endpoint, EndpointEvents } from "../tcp/endpoint.js";
import type { DnsServer } from "./server.js";

/** Connections at once. */
const maxConnections = 32;
/** Messages of one connection that are being answered at once; it is not read on meanwhile. */
const maxOpen = 16;
const idleMs = 30_000;

export class DnsStreams {
  readonly #server: DnsServer;
  #count = 0;

  constructor(server: DnsServer) {
    this.#server = server;
  }

  /** Undefined if there are too many. */
  open(endpoint: Endpoint): EndpointEvents | undefined {
    if (this.#count >= maxConnections) return undefined;
    this.#count++;
    endpoint.answer();
    return new DnsStream(endpoint, this.#server, () => this.#count--);
  }
}

class DnsStream implements EndpointEvents {
  readonly #endpoint: Endpoint;
  readonly #server: DnsServer;
  readonly #over: () => void;
  readonly #idle: NodeJS.Timeout;
  #kept = Buffer.alloc(0);
  #open = 0;
  #ended = false;

  constructor(endpoint: Endpoint, server: DnsServer, over: () => void) {
    this.#endpoint = endpoint;
    this.#server = server;
    this.#over = over;
    this.#idle = setTimeout(() => endpoint.reset(), idleMs);
  }

  opened(): void {}
  drained(): void {}
  reset(): void {}

  data(bytes: Buffer, start: number, end: number): void {
    this.#idle.refresh();
    this.#kept = Buffer.concat([this.#kept, bytes.subarray(start, end)]); // within the connection's window
    this.#answerNext();
  }

  ended(): void {
    this.#ended = true;
    this.#checkEnd();
  }

  closed(): void {
    clearTimeout(this.#idle);
    this.#over();
  }

  #answerNext(): void {
    while (this.#open < maxOpen && this.#kept.length >= 2) {
      const length = this.#kept.readUInt16BE(0);
      if (this.#kept.length < 2 + length) break;
      const message = Buffer.from(this.#kept.subarray(2, 2 + length));
      this.#kept = this.#kept.subarray(2 + length);
      this.#open++;
      void this.#server.answer(message, true).then((answer) => this.#answered(2 + length, answer));
    }
  }

  #answered(consumed: number, answer: Buffer | undefined): void {
    this.#open--;
    this.#endpoint.consumed(consumed);
    if (answer === undefined) return this.#endpoint.reset();
    const framed = Buffer.alloc(2 + answer.length);
    framed.writeUInt16BE(answer.length, 0);
    answer.copy(framed, 2);
    // A guest that asks and does not read the answers is not waited for.
    if (!this.#endpoint.send(framed)) return this.#endpoint.reset();
    this.#answerNext();
    this.#checkEnd();
  }

  #checkEnd(): void {
    if (this.#ended && this.#open === 0) this.#endpoint.end();
  }
}
