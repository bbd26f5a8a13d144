/** The gateway of one guest: what its frames ask for, and who does it. */
import type { Socket as DatagramSocket } from "node:dgram";
import type { Socket } from "node:net";
import { isOwnAddress, link as wire, showAddress } from "./addresses.js";
import type { Audit } from "./audit.js";
import type { Dial } from "./dial.js";
import { answerDhcp, dhcpServerPort } from "./dhcp.js";
import { ResolvedNames } from "./dns/names.js";
import { DnsServer } from "./dns/server.js";
import { DnsStreams } from "./dns/stream.js";
import type { Resolution } from "./dns/resolver.js";
import { Judge } from "./judge.js";
import type { Decision, PolicyHook } from "./policy-hook.js";
import { Published } from "./published.js";
import { Relay } from "./relay.js";
import type { Intercept } from "./secrets/intercept.js";
import type { Secrets } from "./secrets/secrets.js";
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
  /** Its descriptor, where it is known. */
  descriptor?: number;
  hook: PolicyHook;
  audit: Audit;
  resolve(name: string, type: number): Promise<Resolution>;
  dial: Dial;
  /** Whether an address stands for a name that only a proxy knows. */
  isStandIn?(address: string): boolean;
  /** Begins to connect a socket for datagrams. */
  dialDatagrams(address: string, port: number): DatagramSocket;
  secrets: Secrets;
  /** Takes over TLS to hosts with secrets. */
  intercept?: Intercept;
  /** The guest may send again: `receive` had returned false. */
  resume(): void;
}

const dnsPort = 53;
const broadcast = 0xffffffff;
/** What the host's kernel says of a server that no packet reaches. The guest's is told the same, in its own words. */
const unreachableCodes = new Set(["EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT", "EACCES"]);

const onlyByProxy: Decision = { allowed: false, rule: "proxy", reason: "only the host's proxy knows this name, and it is there for HTTP (port 80) and HTTPS (port 443) alone" };

export class Gateway {
  /** Ports of the host that lead into the guest. */
  readonly published: Published;
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
  #flushingLater = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#hook = options.hook;
    this.#link = new Link(options.socket, { guest: wire.guestMac, gateway: wire.gatewayMac }, { begun: () => this.#flushSoon(), drained: () => this.#drained() }, options.descriptor);
    this.#tcp = new TcpConnections(this.#link, (isPatient) => (isPatient ? this.#flushLater() : this.#flushSoon()), {
      incoming: (endpoint) => this.#incoming(endpoint),
      overflow: ({ local, localPort }) => this.#refuse("tcp", local, localPort, { allowed: false, rule: "limit", reason: `more than ${tcpLimits.maxConnections} connections at once (maxConnections)` }),
      held: () => this.#relays.size,
    });
    this.#udp = new UdpFlows({ link: this.#link, audit: options.audit, dial: (address, port) => options.dialDatagrams(address, port), decide: (address, port) => this.#decide("udp", address, port) });
    this.published = new Published({ link: this.#link, audit: options.audit, connected: (socket, guestPort) => this.#published(socket, guestPort) });
    this.#dns = new DnsServer({ hook: () => this.#hook, audit: options.audit, names: this.#names, secrets: options.secrets, resolve: (name, type) => options.resolve(name, type) });
    this.#dnsStreams = new DnsStreams(this.#dns);
  }

  /** Bytes from the guest's side of the cable. False if no more is to be read until `resume`. Throws nothing, whatever they are; a cable that is out of step is cut. */
  receive(chunk: Buffer): boolean {
    this.#flushing = true; // below, once for all
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
      if (local === wire.gateway) continue; // of a published port
      // One of which it is not known to whom it speaks can't go on under rules that are about that.
      const isAllowed = this.#decide("tcp", showAddress(local), localPort).decision.allowed && (relay.isStillAllowed ?? !hook.checksHellos);
      if (!isAllowed) relay.abort("no longer allowed");
    }
    this.#udp.review();
  }

  close(): void {
    this.published.closeAll();
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
    if (!this.published.answer(datagram)) sendUnreachable(this.#link, unreachable.port, quoteOf(packet));
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
    const facts = { rule: decision.rule, address, port: localPort, ...(name !== undefined && { name }) };
    const { audit, secrets, intercept } = this.#options;
    const standIn = this.#isStandIn(address);
    const host = this.#options.dial(address, localPort, this.#names.of(address), standIn);
    if (host === undefined) {
      this.#refuse("tcp", local, localPort, onlyByProxy, name);
      return undefined;
    }
    const isJudged = this.#hook.checksHellos || !secrets.isEmpty || host.proxy !== undefined;
    const relay = new Relay({
      endpoint,
      host,
      audit,
      facts,
      ...(isJudged && { judge: new Judge({ hook: () => this.#hook, audit, secrets, address, port: localPort, standIn, names: () => this.#names.of(address), ...(host.proxy && { proxy: host.proxy }) }) }),
      ...(intercept !== undefined && { intercept }),
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

  #published(socket: Socket, guestPort: number): void {
    if (this.#relays.size >= tcpLimits.maxConnections) return void socket.destroy();
    const { remoteAddress: address, remotePort: port } = socket;
    const facts = { rule: "publish", guest_port: guestPort, ...(address !== undefined && { address }), ...(port !== undefined && { port }) };
    const endpoint = this.#tcp.connect(guestPort, (made) => {
      const relay = new Relay({ endpoint: made, host: socket, audit: this.#options.audit, facts, failed: () => false, over: () => this.#relays.delete(made) });
      this.#relays.set(made, relay);
      return relay;
    });
    if (endpoint === undefined) socket.destroy();
  }

  #decide(protocol: "tcp" | "udp", address: string, port: number): { decision: Decision; name: string | undefined } {
    const names = this.#names.of(address);
    const standIn = this.#isStandIn(address);
    const decision = standIn && protocol === "udp" ? onlyByProxy : this.#hook.connect({ protocol, address, port, names, own: isOwnAddress(address), standIn });
    return { decision, name: names[0] };
  }

  #isStandIn(address: string): boolean {
    return this.#options.isStandIn?.(address) ?? false;
  }

  #refuse(protocol: "tcp" | "icmp", address: number, port: number | undefined, { rule, reason }: Decision, name?: string): void {
    this.#options.audit.write({ type: "refused", protocol, address: showAddress(address), rule, ...(port !== undefined && { port }), ...(name !== undefined && { name }), ...(reason !== undefined && { reason }) });
  }

  // ---- turns

  /** Once what is being handled is: the guest waits for it. */
  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    process.nextTick(() => this.#flush());
  }

  /** At the end of the turn, so that it is in one packet, or at least in one interrupt of the guest's, with what else the turn brings. */
  #flushLater(): void {
    if (this.#flushing || this.#flushingLater) return;
    this.#flushingLater = true;
    setImmediate(() => {
      this.#flushingLater = false;
      this.#flush();
    });
  }

  #flush(): void {
    this.#flushing = true; // what is begun by it is sent by it
    this.#tcp.flush();
    this.#link.flush();
    this.#flushing = false;
  }

  #drained(): void {
    this.#tcp.resume();
    this.#link.flush();
    this.#options.resume();
  }
}
