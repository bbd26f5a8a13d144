/** All TCP connections of one guest: which segment belongs to which, how many there may be, and when their timers run out. */
import { randomBytes } from "node:crypto";
import { link } from "../addresses.js";
import type { Ipv4Packet } from "../wire/ipv4.js";
import type { FrameSink } from "../wire/link.js";
import { Endpoint, type EndpointAddress, type EndpointContext, type EndpointEvents } from "./endpoint.js";
import { Flag, Segment, sendReset } from "./segment.js";

export const tcpLimits = {
  /** Connections at once, those included that are being made or remembered. */
  maxConnections: 4096,
  /** What all connections together may hold in each direction, bytes. */
  budgetBytes: 32 * 1024 * 1024,
  /** What one may hold at most, and is always granted. */
  maxShareBytes: 1024 * 1024,
  minShareBytes: 16 * 1024,
} as const;

/** How exactly timers are kept. */
const tickMs = 100;
/**
 * How long an acknowledgment waits for an answer to go with: long enough for a server near by, and so short that a client which waits for it
 * (RFC 9293, 3.7.4) hardly does. Each packet that is saved is an interrupt in an emulated machine.
 */
const acknowledgeMs = 5;
/** Ports of the gateway's own connections to the guest. */
const firstPort = 32_768;
const lastPort = 60_999;

export interface TcpEvents {
  /** The guest wants a connection. Its endpoint is accepted and waits for `answer` or `reset`. Undefined to refuse it at once. */
  incoming(endpoint: Endpoint): EndpointEvents | undefined;
  /** There are too many connections for this one. */
  overflow(address: EndpointAddress): void;
  /** Connections of which bytes may be held; also those that are over here, and whose server has not taken them yet. */
  held(): number;
}

export class TcpConnections implements EndpointContext {
  readonly sink: FrameSink;
  readonly #events: TcpEvents;
  readonly #flush: (isPatient: boolean) => void;
  readonly #segment = new Segment();
  /** By the address that is not the guest's, then by both ports in one number. */
  readonly #byAddress = new Map<number, Map<number, Endpoint>>();
  #count = 0;
  readonly #toFlush = new Set<Endpoint>();
  readonly #watched = new Set<Endpoint>();
  readonly #remembered = new Set<Endpoint>();
  readonly #toAcknowledge = new Set<Endpoint>();
  #acknowledger: NodeJS.Timeout | undefined;
  #timer: NodeJS.Timeout | undefined;
  #random = Buffer.alloc(0);
  #randomAt = 0;
  #nextPort = firstPort;

  /** `flush` asks for `flush()` to be called soon; if it is patient, when the host's sockets have had their turn. */
  constructor(sink: FrameSink, flush: (isPatient: boolean) => void, events: TcpEvents) {
    this.sink = sink;
    this.#flush = flush;
    this.#events = events;
  }

  get size(): number {
    return this.#count;
  }

  *endpoints(): Iterable<Endpoint> {
    for (const each of this.#byAddress.values()) yield* each.values();
  }

  receive(packet: Ipv4Packet): void {
    const segment = this.#segment;
    if (!segment.read(packet)) return;
    const ports = segment.sourcePort * 65_536 + segment.destinationPort;
    const known = this.#byAddress.get(segment.destination)?.get(ports);
    const isNew = segment.has(Flag.syn) && !segment.has(Flag.ack | Flag.rst | Flag.fin);
    if (known?.isReusable && isNew) known.forget();
    else if (known !== undefined) return known.receive(segment);
    if (isNew) this.#incoming(segment);
    else sendReset(this.sink, segment);
  }

  /** A connection from the gateway to a port of the guest; undefined if there are too many. */
  connect(guestPort: number, events: (endpoint: Endpoint) => EndpointEvents): Endpoint | undefined {
    if (!this.#hasRoom()) return undefined;
    const taken = this.#byAddress.get(link.gateway);
    for (let tries = firstPort; tries <= lastPort; tries++) {
      const localPort = this.#nextPort;
      this.#nextPort = localPort === lastPort ? firstPort : localPort + 1;
      if (taken?.has(guestPort * 65_536 + localPort)) continue;
      const endpoint = this.#add({ local: link.gateway, localPort, guest: link.guest, guestPort });
      endpoint.events = events(endpoint);
      endpoint.connect();
      return endpoint;
    }
    return undefined;
  }

  /** Sends what has come together. */
  flush(): void {
    for (const endpoint of this.#toFlush) {
      this.#toFlush.delete(endpoint);
      endpoint.flush();
    }
  }

  /** The link takes frames again. */
  resume(): void {
    for (const endpoint of this.endpoints()) this.#toFlush.add(endpoint);
    this.flush();
  }

  close(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#acknowledger);
  }

  // ---- what endpoints ask for

  now(): number {
    return performance.now();
  }

  flushSoon(endpoint: Endpoint, isPatient = false): void {
    this.#toFlush.add(endpoint);
    this.#flush(isPatient);
  }

  acknowledgeSoon(endpoint: Endpoint): void {
    this.#toAcknowledge.add(endpoint);
    this.#acknowledger ??= setTimeout(() => {
      this.#acknowledger = undefined;
      for (const each of this.#toAcknowledge) each.acknowledge();
      this.#toAcknowledge.clear();
    }, acknowledgeMs);
  }

  watch(endpoint: Endpoint): void {
    this.#watched.add(endpoint);
    if (endpoint.isReusable) this.#remembered.add(endpoint);
    this.#timer ??= setTimeout(() => this.#tick(), tickMs);
  }

  closed(endpoint: Endpoint): void {
    const { local, localPort, guestPort } = endpoint.address;
    const byPorts = this.#byAddress.get(local);
    byPorts?.delete(guestPort * 65_536 + localPort);
    if (byPorts?.size === 0) this.#byAddress.delete(local);
    this.#count--;
    this.#toFlush.delete(endpoint);
    this.#toAcknowledge.delete(endpoint);
    this.#watched.delete(endpoint);
    this.#remembered.delete(endpoint);
  }

  initialSequence(): number {
    if (this.#randomAt === this.#random.length) {
      this.#random = randomBytes(1024);
      this.#randomAt = 0;
    }
    const value = this.#random.readInt32BE(this.#randomAt);
    this.#randomAt += 4;
    return value;
  }

  shareBytes(): number {
    const { budgetBytes, minShareBytes, maxShareBytes } = tcpLimits;
    return Math.max(minShareBytes, Math.min(maxShareBytes, Math.floor(budgetBytes / Math.max(1, this.#count, this.#events.held()))));
  }

  #incoming(segment: Segment): void {
    const address = { local: segment.destination, localPort: segment.destinationPort, guest: segment.source, guestPort: segment.sourcePort };
    if (!this.#hasRoom()) {
      this.#events.overflow(address);
      return sendReset(this.sink, segment);
    }
    const endpoint = this.#add(address);
    endpoint.accept(segment);
    const events = this.#events.incoming(endpoint);
    if (events === undefined) return endpoint.reset();
    endpoint.events = events;
  }

  /** A connection that is only remembered makes room for a new one. */
  #hasRoom(): boolean {
    if (this.#count < tcpLimits.maxConnections) return true;
    const [oldest] = this.#remembered;
    oldest?.forget();
    return this.#count < tcpLimits.maxConnections;
  }

  #add(address: EndpointAddress): Endpoint {
    const endpoint = new Endpoint(this, address, silent);
    let byPorts = this.#byAddress.get(address.local);
    if (byPorts === undefined) this.#byAddress.set(address.local, (byPorts = new Map()));
    byPorts.set(address.guestPort * 65_536 + address.localPort, endpoint);
    this.#count++;
    return endpoint;
  }

  #tick(): void {
    this.#timer = undefined;
    const now = this.now();
    for (const endpoint of this.#watched) {
      if (endpoint.deadline === 0) this.#watched.delete(endpoint);
      else if (endpoint.deadline <= now) {
        this.#watched.delete(endpoint);
        endpoint.expire();
      }
    }
    if (this.#watched.size > 0) this.#timer ??= setTimeout(() => this.#tick(), tickMs);
  }
}

const silent: EndpointEvents = { opened() {}, data() {}, ended() {}, drained() {}, reset() {}, closed() {} };
