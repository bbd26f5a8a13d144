/** A connection of the guest's and the host's connection that stands for it: bytes, ends, resets and back-pressure, both ways. */
import type { Socket } from "node:net";
import { PyroError, systemCode } from "../base/error.js";
import type { Audit, AuditRecord } from "./audit.js";
import type { Dialed } from "./dial.js";
import { GuestStream } from "./guest-stream.js";
import { HostWriter } from "./host-writer.js";
import { Inspection } from "./inspect/inspection.js";
import type { Judge } from "./judge.js";
import type { Intercept } from "./secrets/intercept.js";
import type { Endpoint, EndpointEvents } from "./tcp/endpoint.js";

export interface RelayOptions {
  endpoint: Endpoint;
  /** Being connected; or a socket that is. */
  host: Dialed | Socket;
  audit: Audit;
  /** What the audit says of it. */
  facts: Pick<AuditRecord, "name" | "rule" | "address" | "port" | "guest_port">;
  /** Looks at what the guest says; undefined if there is nothing that it could say wrong. */
  judge?: Judge;
  /** Takes over TLS to a host with a secret. */
  intercept?: Intercept;
  /** The host could not connect. True if the guest has been told more than a reset can tell. */
  failed(code: string | undefined): boolean;
  /** Nothing of it is left on either side. */
  over(): void;
}

/** The host's side learns of a dead peer after some minutes, however long nothing is said. */
const keepAliveMs = 60_000;
/** How long a server may take nothing of what a guest left that is done. */
const lingerMs = 300_000;

export class Relay implements EndpointEvents {
  readonly #endpoint: Endpoint;
  readonly #socket: Socket;
  readonly #options: RelayOptions;
  readonly #writer: HostWriter;
  readonly #judge: Judge | undefined;
  /** What the guest says passes through it, until it is known to be nothing that has to be looked at. */
  #inspection: Inspection | undefined;
  /** The guest's side of a connection that was taken over, and how to break it off. */
  #taken: { stream: GuestStream; close(): void } | undefined;
  #connected = false;
  #ended = false;
  #guestClosed = false;
  #hostClosed = false;
  #sent = 0;
  #received = 0;
  #reason: string | undefined;

  constructor(options: RelayOptions) {
    const { endpoint, host, audit } = options;
    const socket = "opened" in host ? host.socket : host;
    this.#options = options;
    this.#endpoint = endpoint;
    this.#socket = socket;
    this.#writer = new HostWriter(socket, (bytes) => endpoint.consumed(bytes));
    this.#judge = options.judge;
    if (options.judge !== undefined) this.#inspection = this.#inspect(options.judge);
    audit.write({ type: "connect", protocol: "tcp", ...options.facts });
    audit.count("connectionsOpen");
    audit.count("connectionsTotal");
    if ("opened" in host) host.opened((failure, said) => (failure === undefined ? this.#connect(said) : this.#hostFailed(failure)));
    else this.#listen();
    socket.on("error", (error) => this.#hostFailed(error));
    socket.on("close", () => this.#closedByHost());
  }

  // ---- the guest's side

  opened(): void {}

  data(bytes: Buffer, start: number, end: number): void {
    this.#sent += end - start;
    this.#options.audit.count("bytesSent", end - start);
    if (this.#inspection !== undefined) this.#inspection.push(Buffer.from(bytes.subarray(start, end)));
    else this.#writer.push(bytes, start, end);
  }

  ended(): void {
    this.#ended = true;
    this.#inspection?.end();
    if (this.#taken !== undefined) this.#taken.stream.feedEnd();
    else this.#writer.end();
  }

  drained(): void {
    if (this.#taken !== undefined) this.#taken.stream.drained();
    else this.#socket.resume();
  }

  reset(): void {
    this.#reason ??= "reset by the guest";
    this.#breakOff();
  }

  closed(): void {
    this.#guestClosed = true;
    // After both halves have ended there may be bytes that the host has not taken yet; in every other case nobody waits for them.
    this.#inspection?.close();
    const isOrderly = this.#ended && (this.#socket.readableEnded || this.#taken !== undefined);
    if (!isOrderly) {
      this.#writer.close();
      this.#taken?.close();
      this.#socket.destroy();
    } else {
      this.#socket.setTimeout(lingerMs, () => {
        this.#reason ??= "the server took nothing more";
        this.#writer.close();
        this.#breakOff();
      });
    }
    this.#checkOver();
  }

  /** Whether what the guest has said is allowed as things are now; undefined if that was never looked at. */
  get isStillAllowed(): boolean | undefined {
    return this.#judge?.stillAllowed();
  }

  /** Breaks it off on both sides. */
  abort(reason: string): void {
    this.#reason ??= reason;
    this.#endpoint.reset();
    this.#breakOff();
  }

  /** The host's side hears of it by a reset. */
  #breakOff(): void {
    this.#taken?.close();
    // TLS, to a proxy, can't be reset.
    if (this.#connected && this.#taken === undefined && !("encrypted" in this.#socket)) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  // ---- what the guest says

  #inspect(judge: Judge): Inspection {
    const check = <T extends { allowed: boolean }>(verdict: T): T => {
      if (!verdict.allowed) this.abort("refused");
      return verdict;
    };
    return new Inspection({
      tls: (name) => {
        const verdict = judge.tls(name);
        if (verdict === "refuse") this.abort("refused");
        if (verdict === "take") this.#takeOver(name!, judge);
        return verdict;
      },
      head: (head) => check(judge.head(head)),
      other: () => {
        if (!judge.other()) return this.abort("refused");
        if (!judge.watches && this.#taken === undefined) this.#inspection = undefined;
      },
      malformed: (via, reason) => {
        judge.malformed(via, reason);
        this.abort("refused");
      },
      forward: (bytes, credit) => this.#forward(bytes, credit),
    });
  }

  #forward(bytes: Buffer, credit: number): void {
    if (this.#taken !== undefined) return this.#taken.stream.feed(bytes);
    if (this.#judge?.leaks(bytes)) return this.abort("refused");
    this.#writer.push(bytes, 0, bytes.length, credit);
  }

  #takeOver(name: string, judge: Judge): void {
    const { endpoint, intercept } = this.#options;
    const socket = this.#socket;
    if (intercept === undefined) return this.abort("refused");
    socket.removeAllListeners("data").removeAllListeners("end");
    const stream = new GuestStream(endpoint);
    const close = intercept({
      guest: stream,
      socket,
      name,
      head: (head) => {
        const verdict = judge.head(head, name);
        if (!verdict.allowed) this.abort("refused");
        return verdict;
      },
      received: (bytes) => this.#count(bytes),
      failed: (reason) => {
        judge.failed(name, reason);
        this.abort("refused");
      },
    });
    this.#taken = { stream, close };
  }

  // ---- the host's side

  #connect(said: Buffer): void {
    this.#endpoint.answer();
    this.#listen();
    if (said.length > 0 && !this.#fromHost(said)) this.#socket.pause();
  }

  #listen(): void {
    this.#connected = true;
    const { host, endpoint } = this.#options;
    // Not before it is connected: Node would do it then once more.
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, keepAliveMs);
    if ("opened" in host && host.read !== undefined) host.read((bytes) => this.#fromHost(Buffer.from(bytes)), () => endpoint.shareBytes);
    else this.#socket.on("data", (chunk: Buffer) => this.#fromHost(chunk) || this.#socket.pause());
    this.#socket.on("end", () => this.#endpoint.end());
    this.#socket.resume();
  }

  /** False if no more is wanted for now. */
  #fromHost(chunk: Buffer): boolean {
    this.#count(chunk.length);
    this.#inspection?.answered(chunk);
    return this.#endpoint.send(chunk);
  }

  #count(received: number): void {
    this.#received += received;
    this.#options.audit.count("bytesReceived", received);
  }

  #hostFailed(error: Error): void {
    const code = systemCode(error);
    this.#reason ??= error instanceof PyroError ? error.message : (code ?? error.message);
    if (!this.#connected && this.#options.failed(code)) this.#endpoint.forget();
    else this.#endpoint.reset();
  }

  #closedByHost(): void {
    this.#hostClosed = true;
    // After both halves ended in order the endpoint still has to deliver; in every other case it is broken off.
    if (this.#taken === undefined && (!this.#socket.readableEnded || !this.#socket.writableFinished)) this.#endpoint.reset();
    this.#checkOver();
  }

  #checkOver(): void {
    if (!this.#guestClosed || !this.#hostClosed) return;
    const { audit, facts } = this.#options;
    audit.count("connectionsOpen", -1);
    audit.write({ type: "close", protocol: "tcp", ...facts, bytes_sent: this.#sent, bytes_received: this.#received, ...(this.#reason !== undefined && { reason: this.#reason }) });
    this.#options.over();
  }
}
