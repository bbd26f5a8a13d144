/** Ports of the host that lead into the guest. To the guest it looks as if the gateway came. */
import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from "node:dgram";
import { createServer, isIPv4, type Server, type Socket } from "node:net";
import { PyroError, systemCode } from "../base/error.js";
import type { Audit } from "./audit.js";
import type { PublishRequest } from "./control/messages.js";
import { link as wire } from "./addresses.js";
import type { FrameSink } from "./wire/link.js";
import { sendDatagram, type Datagram } from "./wire/udp.js";

export const publishLimits = {
  /** Ports at once. */
  maxPublished: 64,
  /** Peers of all UDP ports at once; the one that was silent longest makes room. */
  maxPeers: 1024,
} as const;

/** Ports of the gateway that stand for peers of UDP ports. */
const firstPort = 32_768;
const portCount = 28_232;

interface Peer {
  socket: DatagramSocket;
  address: string;
  port: number;
  guestPort: number;
  localPort: number;
}

interface Open {
  request: PublishRequest;
  close(): void;
}

export interface PublishedOptions {
  link: FrameSink;
  audit: Audit;
  /** A connection that came in for a port of the guest. */
  connected(socket: Socket, guestPort: number): void;
}

export class Published {
  readonly #options: PublishedOptions;
  readonly #open: Open[] = [];
  /** In the order of their last use. */
  readonly #peers = new Map<string, Peer>();
  readonly #byLocalPort = new Map<number, Peer>();
  #nextPort = 0;

  constructor(options: PublishedOptions) {
    this.#options = options;
  }

  list(): PublishRequest[] {
    return this.#open.map(({ request }) => request);
  }

  /** Gives the request with the port that was taken. Throws INVALID_ARGUMENT, EXISTS, DENIED. */
  async open(request: PublishRequest): Promise<PublishRequest> {
    const { protocol, host_ip: address, host_port: port, guest_port: guestPort } = check(request);
    if (this.#open.length >= publishLimits.maxPublished) throw new PyroError("INVALID_ARGUMENT", `At most ${publishLimits.maxPublished} ports can be published (maxPublished).`);
    const opened = await (protocol === "tcp" ? this.#openTcp(address, port, guestPort) : this.#openUdp(address, port, guestPort)).catch((error: unknown) => {
      throw openError(error, address, port);
    });
    const published = { protocol, host_ip: address, host_port: opened.port, guest_port: guestPort };
    this.#open.push({ request: published, close: opened.close });
    this.#options.audit.write({ type: "publish", protocol, address, port: opened.port, guest_port: guestPort });
    return published;
  }

  /** New connections are refused from now on; those there are stay. Throws NOT_FOUND. */
  close({ protocol, host_ip: address, host_port: port }: Pick<PublishRequest, "protocol" | "host_ip" | "host_port">): void {
    const index = this.#open.findIndex(({ request }) => request.protocol === protocol && request.host_ip === address && request.host_port === port);
    if (index < 0) throw new PyroError("NOT_FOUND", `Port ${port} of ${address} is not published (${protocol}).`, { hint: "`pyro vm network` lists those that are." });
    this.#open.splice(index, 1)[0]!.close();
  }

  closeAll(): void {
    for (const { close } of this.#open.splice(0)) close();
  }

  /** A datagram from the guest to a port of the gateway. False if it stands for no peer. */
  answer({ sourcePort, destinationPort, data }: Datagram): boolean {
    const peer = this.#byLocalPort.get(destinationPort);
    if (peer === undefined || peer.guestPort !== sourcePort) return false;
    this.#options.audit.count("bytesSent", data.length);
    peer.socket.send(Buffer.from(data), peer.port, peer.address);
    return true;
  }

  #openTcp(address: string, port: number, guestPort: number): Promise<{ port: number; close(): void }> {
    const server: Server = createServer({ allowHalfOpen: true }, (socket) => this.#options.connected(socket, guestPort));
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: address, port, exclusive: true }, () => {
        server.removeListener("error", reject).on("error", () => {}); // one connection that can't be accepted does not end the others
        resolve({ port: (server.address() as { port: number }).port, close: () => server.close() });
      });
    });
  }

  #openUdp(address: string, port: number, guestPort: number): Promise<{ port: number; close(): void }> {
    const socket = createSocket("udp4");
    return new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.bind({ address, port, exclusive: true }, () => {
        socket.removeListener("error", reject).on("error", () => {}); // a peer that is gone
        const taken = socket.address().port;
        socket.on("message", (data, from) => this.#fromPeer(socket, `${address} ${taken}`, data, from, guestPort));
        const close = () => {
          for (const [key, peer] of this.#peers) if (peer.socket === socket) this.#forget(key, peer);
          socket.close();
        };
        resolve({ port: taken, close });
      });
    });
  }

  #fromPeer(socket: DatagramSocket, at: string, data: Buffer, { address, port }: RemoteInfo, guestPort: number): void {
    if (port === 0) return; // whoever leaves it out wants no answer (RFC 768), and Node throws where one is sent
    const key = `${address} ${port} ${at}`;
    const peer = this.#peers.get(key) ?? this.#meet(socket, address, port, guestPort);
    this.#peers.delete(key);
    this.#peers.set(key, peer);
    this.#options.audit.count("bytesReceived", data.length);
    if (!this.#options.link.congested) sendDatagram(this.#options.link, wire.gateway, peer.localPort, guestPort, data);
  }

  #meet(socket: DatagramSocket, address: string, port: number, guestPort: number): Peer {
    if (this.#peers.size >= publishLimits.maxPeers) {
      const [oldest] = this.#peers;
      this.#forget(oldest![0], oldest![1]);
    }
    do this.#nextPort = (this.#nextPort + 1) % portCount;
    while (this.#byLocalPort.has(firstPort + this.#nextPort));
    const peer = { socket, address, port, guestPort, localPort: firstPort + this.#nextPort };
    this.#byLocalPort.set(peer.localPort, peer);
    return peer;
  }

  #forget(key: string, peer: Peer): void {
    this.#peers.delete(key);
    this.#byLocalPort.delete(peer.localPort);
  }
}

function check(request: PublishRequest): PublishRequest {
  const { protocol, host_ip: address, host_port: hostPort, guest_port: guestPort } = request;
  const isPort = (port: unknown, least: number) => typeof port === "number" && Number.isInteger(port) && port >= least && port <= 65_535;
  if (protocol !== "tcp" && protocol !== "udp") throw new PyroError("INVALID_ARGUMENT", "A port is published for tcp or udp.");
  if (typeof address !== "string" || !isIPv4(address)) throw new PyroError("INVALID_ARGUMENT", "A port is published on an IPv4 address of this host, like 127.0.0.1.");
  if (!isPort(hostPort, 0) || !isPort(guestPort, 1)) throw new PyroError("INVALID_ARGUMENT", "A port is a number from 1 to 65535, and 0 for a port of the host that is free.");
  return { protocol, host_ip: address, host_port: hostPort, guest_port: guestPort };
}

function openError(error: unknown, address: string, port: number): PyroError {
  const code = systemCode(error);
  if (code === "EADDRINUSE") return new PyroError("EXISTS", `Port ${port} of ${address} is taken.`, { cause: error, hint: "Choose another one, or 0 for one that is free." });
  if (code === "EACCES") return new PyroError("DENIED", `Port ${port} of ${address} may not be opened.`, { cause: error, hint: "Ports below 1024 are root's; choose a higher one, or 0." });
  if (code === "EADDRNOTAVAIL") return new PyroError("INVALID_ARGUMENT", `${address} is no address of this host.`, { cause: error, hint: "127.0.0.1 is for this host alone, 0.0.0.0 for everybody." });
  return new PyroError("INTERNAL", `Port ${port} of ${address} could not be opened: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}
