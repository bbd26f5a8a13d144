/** A connection of the guest's and the host's connection that stands for it: bytes, ends, resets and back-pressure, both ways. */
import type { Socket } from "node:net";
import { systemCode } from "../base/error.js";
import type { Audit, AuditRecord } from "./audit.js";
import { showAddress } from "./addresses.js";
import { HostWriter } from "./host-writer.js";
import type { Endpoint, EndpointEvents } from "./tcp/endpoint.js";

export interface RelayOptions {
  endpoint: Endpoint;
  /** Being connected, or connected. */
  socket: Socket;
  audit: Audit;
  /** What the audit says of it beyond its address. */
  facts: Pick<AuditRecord, "name" | "rule">;
  /** The host could not connect. True if the guest has been told more than a reset can tell. */
  failed(code: string | undefined): boolean;
  /** Nothing of it is left on either side. */
  over(): void;
}

/** The host's side learns of a dead peer after some minutes, however long nothing is said. */
const keepAliveMs = 60_000;

export class Relay implements EndpointEvents {
  readonly #endpoint: Endpoint;
  readonly #socket: Socket;
  readonly #options: RelayOptions;
  readonly #writer: HostWriter;
  #connected = false;
  #ended = false;
  #guestClosed = false;
  #hostClosed = false;
  #sent = 0;
  #received = 0;
  #reason: string | undefined;

  constructor(options: RelayOptions) {
    const { endpoint, socket, audit } = options;
    this.#options = options;
    this.#endpoint = endpoint;
    this.#socket = socket;
    this.#writer = new HostWriter(socket, (bytes) => endpoint.consumed(bytes));
    audit.count("connectionsOpen");
    audit.count("connectionsTotal");
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    if (socket.connecting) socket.once("connect", () => this.#connect());
    else this.#connected = true;
    socket.on("data", (chunk: Buffer) => this.#fromHost(chunk));
    socket.on("end", () => endpoint.end());
    socket.on("error", (error) => this.#hostFailed(error));
    socket.on("close", () => this.#closedByHost());
  }

  // ---- the guest's side

  opened(): void {}

  data(bytes: Buffer, start: number, end: number): void {
    this.#sent += end - start;
    this.#options.audit.count("bytesSent", end - start);
    this.#writer.push(bytes, start, end);
  }

  ended(): void {
    this.#ended = true;
    this.#writer.end();
  }

  drained(): void {
    this.#socket.resume();
  }

  reset(): void {
    this.#reason ??= "reset by the guest";
    if (this.#connected) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  closed(): void {
    this.#guestClosed = true;
    // After both halves have ended there may be bytes that the host has not taken yet; in every other case nobody waits for them.
    if (!this.#ended || !this.#socket.readableEnded) {
      this.#writer.close();
      this.#socket.destroy();
    }
    this.#checkOver();
  }

  /** Breaks it off on both sides. */
  abort(reason: string): void {
    this.#reason = reason;
    this.#endpoint.reset();
    this.#socket.resetAndDestroy();
  }

  // ---- the host's side

  #connect(): void {
    this.#connected = true;
    this.#endpoint.answer();
  }

  #fromHost(chunk: Buffer): void {
    this.#received += chunk.length;
    this.#options.audit.count("bytesReceived", chunk.length);
    if (!this.#endpoint.send(chunk)) this.#socket.pause();
  }

  #hostFailed(error: Error): void {
    const code = systemCode(error);
    this.#reason ??= code ?? error.message;
    if (!this.#connected && this.#options.failed(code)) this.#endpoint.forget();
    else this.#endpoint.reset();
  }

  #closedByHost(): void {
    this.#hostClosed = true;
    // After both halves ended in order the endpoint still has to deliver; in every other case it is broken off.
    if (!this.#socket.readableEnded || !this.#socket.writableFinished) this.#endpoint.reset();
    this.#checkOver();
  }

  #checkOver(): void {
    if (!this.#guestClosed || !this.#hostClosed) return;
    const { audit, facts, endpoint } = this.#options;
    audit.count("connectionsOpen", -1);
    const { local, localPort } = endpoint.address;
    audit.write({ type: "close", protocol: "tcp", ...facts, address: showAddress(local), port: localPort, bytes_sent: this.#sent, bytes_received: this.#received, ...(this.#reason !== undefined && { reason: this.#reason }) });
    this.#options.over();
  }
}
