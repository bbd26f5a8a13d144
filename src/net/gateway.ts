/** The gateway of one guest: what its frames ask for, and who does it. */
import type { Socket } from "node:net";
import { isOwnAddress, link as wire, showAddress } from "./addresses.js";
import type { Audit } from "./audit.js";
import { answerDhcp, dhcpServerPort } from "./dhcp.js";
import { ResolvedNames } from "./dns/names.js";
import { DnsServer } from "./dns/server.js";
import { DnsStreams } from "./dns/stream.js";
import type { Resolution } from "./dns/resolver.js";
import type { Decision, PolicyHook } from "./policy-hook.js";
import { Relay } from "./relay.js";
import { TcpConnections, tcpLimits } from "./tcp/connections.js";
import type { Endpoint, EndpointEvents } from "./tcp/endpoint.js";
import { UdpFlows } from "./udp-flows.js";
import { answerArp, etherTypeArp } from "./wire/arp.js";
import { answerEcho, isEcho, quoteOf, sendUnreachable, unreachable } from "./wire/icmp.js";
import { Ipv4Packet, etherTypeIpv4, protocols } from "./wire/ipv4.js";
import { FrameReader, Link } from "./wire/link.js";
import { readDatagram, sendDatagram, type Datagram } from "./wire/udp.js";

export interface GatewayOptions {
  /** Frames to and from the guest; whoever reads it calls `receive`. */
  socket: Socket;
  hook: PolicyHook;
  audit: Audit;
  resolve(name: string, type: number): Promise<Resolution>;
  /** Begins a connection from the host; both of its halves end separately. */
  dial(address: string, port: number): Socket;
  /** The guest may send again: `receive` had returned false. */
  resume(): void;
}

const dnsPort = 53;
const broadcast = 0xffffffff;
/** What the host's kernel says of a server that no packet reaches. The guest's is told the same, in its own words. */
const unreachableCodes = new Set(["EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT", "EACCES"]);

export class Gateway {
  readonly #options: GatewayOptions;
  readonly #link: Link;
  readonly #reader = new FrameReader();
  readonly #packet = new Ipv4Packet();
  readonly #tcp: TcpConnections;
  readonly #udp: UdpFlows;
  readonly #names = new ResolvedNames();
  readonly #dns: DnsServer;
  readonly #dnsStreams: DnsStreams;
  readonly #relays = new Map<Endpoint, Relay>();
  #hook: PolicyHook;
  #flushing = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#hook = options.hook;
    this.#link = new Link(options.socket, { guest: wire.guestMac, gateway: wire.gatewayMac }, { begun: () => this.#flushSoon(), drained: () => this.#drained() });
    this.#tcp = new TcpConnections(this.#link, () => this.#flushSoon(), {
      incoming: (endpoint) => this.#incoming(endpoint),
      overflow: ({ local, localPort }) => this.#refuse("tcp", local, localPort, { allowed: false, rule: "limit", reason: `more than ${tcpLimits.maxConnections} connections at once (maxConnections)` }),
    });
    this.#udp = new UdpFlows({ link: this.#link, audit: options.audit, decide: (address, port) => this.#decide("udp", address, port) });
    this.#dns = new DnsServer({ hook: () => this.#hook, audit: options.audit, names: this.#names, resolve: (name, type) => options.resolve(name, type) });
    this.#dnsStreams = new DnsStreams(this.#dns);
  }

  /** Bytes from the guest's side of the cable. False if no more is to be read until `resume`. Throws nothing, whatever they are; a cable that is out of step is cut. */
  receive(chunk: Buffer): boolean {
    const isWhole = this.#reader.push(chunk, (bytes, start, end) => this.#frame(bytes, start, end));
    if (!isWhole) this.#options.socket.destroy();
    this.#flush();
    return !this.#link.congested;
  }

  /** From now on; what is open and no longer allowed is broken off. */
  setHook(hook: PolicyHook): void {
    this.#hook = hook;
    for (const [endpoint, relay] of this.#relays) {
      const { local, localPort } = endpoint.address;
      if (!this.#decide("tcp", showAddress(local), localPort).decision.allowed) relay.abort("no longer allowed");
    }
    this.#udp.review();
  }

  close(): void {
    for (const relay of this.#relays.values()) relay.abort("the VM ended");
    this.#udp.close();
    this.#tcp.close();
  }

  // ---- frames

  #frame(bytes: Buffer, start: number, end: number): void {
    // Only from the guest's own card, and only to us or to everybody.
    if (bytes.compare(wire.guestMac, 0, 6, start + 6, start + 12) !== 0) return;
    const isOurs = bytes.compare(wire.gatewayMac, 0, 6, start, start + 6) === 0;
    const isForAll = bytes.readUIntBE(start, 6) === 0xffffffffffff;
    if (!isOurs && !isForAll) return;
    const type = bytes.readUInt16BE(start + 12);
    if (type === etherTypeIpv4) this.#ipv4(bytes, start + 14, end, isOurs);
    else if (type === etherTypeArp && !this.#link.congested) answerArp(this.#link, bytes, start + 14, end);
  }

  #ipv4(bytes: Buffer, start: number, end: number, isOurs: boolean): void {
    const packet = this.#packet;
    if (!packet.read(bytes, start, end)) return;
    if (packet.source !== wire.guest || !isOurs) return this.#dhcp(packet);
    if (packet.protocol === protocols.tcp) this.#tcp.receive(packet);
    else if (packet.protocol === protocols.udp) this.#datagram(packet);
    else if (packet.protocol === protocols.icmp) this.#icmp(packet);
    else sendUnreachable(this.#link, unreachable.prohibited, quoteOf(packet));
  }

  /** All that may come from another address than the guest's, or go to everybody. */
  #dhcp(packet: Ipv4Packet): void {
    const isFromClient = packet.source === 0 || packet.source === wire.guest;
    const isToServer = packet.destination === broadcast || packet.destination === wire.gateway;
    const datagram = packet.protocol === protocols.udp && isFromClient && isToServer ? readDatagram(packet) : undefined;
    if (datagram?.destinationPort === dhcpServerPort) answerDhcp(this.#link, datagram);
  }

  #icmp(packet: Ipv4Packet): void {
    if (packet.destination === wire.gateway) return void answerEcho(this.#link, packet);
    if (!isEcho(packet)) return;
    // No process without privileges can send a ping for it in a way that its answer could be told from others'.
    this.#refuse("icmp", packet.destination, undefined, { allowed: false, rule: "icmp", reason: "only the gateway answers pings" });
    sendUnreachable(this.#link, unreachable.prohibited, quoteOf(packet));
  }

  #datagram(packet: Ipv4Packet): void {
    const datagram = readDatagram(packet);
    if (datagram === undefined) return;
    if (packet.destination !== wire.gateway) return this.#udp.send(packet, datagram);
    if (datagram.destinationPort === dnsPort) return void this.#answerDns(datagram);
    if (datagram.destinationPort === dhcpServerPort) return answerDhcp(this.#link, datagram);
    sendUnreachable(this.#link, unreachable.port, quoteOf(packet));
  }

  async #answerDns({ sourcePort, data }: Datagram): Promise<void> {
    const answer = await this.#dns.answer(Buffer.from(data));
    if (answer === undefined || this.#link.congested) return;
    sendDatagram(this.#link, wire.gateway, dnsPort, sourcePort, answer);
  }

  // ---- connections

  #incoming(endpoint: Endpoint): EndpointEvents | undefined {
    const { local, localPort } = endpoint.address;
    if (local === wire.gateway) return localPort === dnsPort ? this.#dnsStreams.open(endpoint) : undefined;
    const address = showAddress(local);
    const { decision, name } = this.#decide("tcp", address, localPort);
    if (!decision.allowed) {
      this.#refuse("tcp", local, localPort, decision, name);
      return undefined;
    }
    if (this.#relays.size >= tcpLimits.maxConnections) return undefined; // their guest's side is closed, the host's is not yet
    const quote = quoteOf(this.#packet);
    const facts = { rule: decision.rule, ...(name !== undefined && { name }) };
    this.#options.audit.write({ type: "connect", protocol: "tcp", ...facts, address, port: localPort });
    const relay = new Relay({
      endpoint,
      socket: this.#options.dial(address, localPort),
      audit: this.#options.audit,
      facts,
      failed: (code) => {
        if (code === undefined || !unreachableCodes.has(code)) return false;
        sendUnreachable(this.#link, unreachable.host, quote);
        return true;
      },
      over: () => this.#relays.delete(endpoint),
    });
    this.#relays.set(endpoint, relay);
    return relay;
  }

  #decide(protocol: "tcp" | "udp", address: string, port: number): { decision: Decision; name: string | undefined } {
    const names = this.#names.of(address);
    return { decision: this.#hook.connect({ protocol, address, port, names, own: isOwnAddress(address) }), name: names[0] };
  }

  #refuse(protocol: "tcp" | "icmp", address: number, port: number | undefined, { rule, reason }: Decision, name?: string): void {
    this.#options.audit.write({ type: "refused", protocol, address: showAddress(address), rule, ...(port !== undefined && { port }), ...(name !== undefined && { name }), ...(reason !== undefined && { reason }) });
  }

  // ---- turns

  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    this.#tcp.flush();
    this.#link.flush();
  }

  #drained(): void {
    this.#tcp.resume();
    this.#link.flush();
    this.#options.resume();
  }
}
