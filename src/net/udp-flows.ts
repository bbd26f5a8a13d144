/** The guest's UDP: each of its conversations is a connected socket of the host, which takes datagrams from that one peer alone. */
import { createSocket, type Socket } from "node:dgram";
import { systemCode } from "../base/error.js";
import { showAddress } from "./addresses.js";
import type { Audit } from "./audit.js";
import type { Decision } from "./policy-hook.js";
import { quoteOf, sendUnreachable, unreachable } from "./wire/icmp.js";
import type { Ipv4Packet } from "./wire/ipv4.js";
import type { Link } from "./wire/link.js";
import { sendDatagram, type Datagram } from "./wire/udp.js";

export const udpLimits = {
  /** Conversations at once; the one that was silent longest makes room. */
  maxFlows: 1024,
  /** A conversation that is silent for longer is over (RFC 4787, 4.3: at least two minutes). */
  idleMs: 180_000,
  /** One of a single question and its answer. */
  shortIdleMs: 30_000,
  /** Datagrams of one conversation that wait for the host's kernel; more are dropped. */
  maxWaiting: 128,
} as const;

const sweepMs = 10_000;

export interface UdpFlowsOptions {
  link: Link;
  audit: Audit;
  /** Asks the policy; names are those of the address. */
  decide(address: string, port: number): { decision: Decision; name: string | undefined };
}

interface Flow {
  socket: Socket;
  address: string;
  port: number;
  name: string | undefined;
  rule: string;
  usedAt: number;
  waiting: number;
  sent: number;
  received: number;
  answers: number;
  /** The guest's last packet, to be brought back if it was refused. */
  quote: Buffer;
}

export class UdpFlows {
  readonly #options: UdpFlowsOptions;
  /** In the order of their last use. */
  readonly #flows = new Map<string, Flow>();
  #sweeper: NodeJS.Timeout | undefined;

  constructor(options: UdpFlowsOptions) {
    this.#options = options;
  }

  send(packet: Ipv4Packet, datagram: Datagram): void {
    const key = `${datagram.sourcePort} ${packet.destination} ${datagram.destinationPort}`;
    const flow = this.#flows.get(key) ?? this.#open(key, packet, datagram);
    if (flow === undefined) return;
    this.#flows.delete(key);
    this.#flows.set(key, flow);
    flow.usedAt = performance.now();
    flow.quote = quoteOf(packet);
    if (flow.waiting >= udpLimits.maxWaiting) return;
    flow.waiting++;
    flow.sent += datagram.data.length;
    this.#options.audit.count("bytesSent", datagram.data.length);
    const data = Buffer.from(datagram.data);
    whenConnected(flow.socket, () => flow.socket.send(data, () => flow.waiting--));
  }

  /** Ends what a new policy no longer allows. */
  review(): void {
    for (const [key, flow] of this.#flows) {
      if (!this.#options.decide(flow.address, flow.port).decision.allowed) this.#close(key, flow, "no longer allowed");
    }
  }

  close(): void {
    clearInterval(this.#sweeper);
    for (const [key, flow] of this.#flows) this.#close(key, flow);
  }

  #open(key: string, packet: Ipv4Packet, { sourcePort, destinationPort }: Datagram): Flow | undefined {
    const { link, audit } = this.#options;
    const { destination } = packet;
    const address = showAddress(destination);
    const { decision, name } = this.#options.decide(address, destinationPort);
    const facts = { protocol: "udp", address, port: destinationPort, rule: decision.rule, ...(name !== undefined && { name }) } as const;
    if (!decision.allowed) {
      audit.write({ type: "refused", ...facts, ...(decision.reason !== undefined && { reason: decision.reason }) });
      sendUnreachable(link, unreachable.prohibited, quoteOf(packet));
      return undefined;
    }
    if (this.#flows.size >= udpLimits.maxFlows) {
      const [oldest] = this.#flows;
      this.#close(oldest![0], oldest![1], "too many (maxFlows)");
    }
    const socket = createSocket("udp4");
    const flow: Flow = { socket, address, port: destinationPort, name, rule: decision.rule, usedAt: 0, waiting: 0, sent: 0, received: 0, answers: 0, quote: quoteOf(packet) };
    socket.on("message", (data) => {
      flow.usedAt = performance.now();
      flow.answers++;
      flow.received += data.length;
      audit.count("bytesReceived", data.length);
      if (link.congested) return; // as any router would
      sendDatagram(link, destination, destinationPort, sourcePort, data);
    });
    socket.on("error", (error) => {
      const code = systemCode(error);
      if (!link.congested) sendUnreachable(link, code === "ECONNREFUSED" ? unreachable.port : unreachable.host, flow.quote);
      this.#close(key, flow, code);
    });
    socket.connect(destinationPort, address);
    audit.write({ type: "connect", ...facts });
    audit.count("connectionsOpen");
    audit.count("connectionsTotal");
    this.#sweeper ??= setInterval(() => this.#sweep(), sweepMs);
    return flow;
  }

  #sweep(): void {
    const now = performance.now();
    for (const [key, flow] of this.#flows) {
      const allowed = flow.answers <= 1 ? udpLimits.shortIdleMs : udpLimits.idleMs;
      if (now - flow.usedAt > allowed) this.#close(key, flow);
    }
    if (this.#flows.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #close(key: string, flow: Flow, reason?: string): void {
    if (this.#flows.get(key) !== flow) return;
    this.#flows.delete(key);
    flow.socket.removeAllListeners("error").on("error", () => {});
    flow.socket.close();
    const { audit } = this.#options;
    audit.count("connectionsOpen", -1);
    audit.write({ type: "close", protocol: "udp", address: flow.address, port: flow.port, rule: flow.rule, ...(flow.name !== undefined && { name: flow.name }), bytes_sent: flow.sent, bytes_received: flow.received, ...(reason !== undefined && { reason }) });
  }
}

function whenConnected(socket: Socket, send: () => void): void {
  try {
    socket.remoteAddress();
    send();
  } catch {
    socket.once("connect", send);
  }
}
