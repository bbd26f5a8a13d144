/** Connections from the host to where a guest wants to go: directly, or through a proxy. */
import { connect, type Socket } from "node:net";
import { askProxy, type Proxies, type Proxy } from "./proxy.js";

/** A connection that was begun. */
export interface Dialed {
  socket: Socket;
  /** Calls back once, when the server can be spoken to, with what it has said already; or with why it can't be. */
  opened(done: (failure: Error | undefined, said: Buffer) => void): void;
  /**
   * Gives what the server says to `take`, valid during the call alone, at most `maxBytes` at once; it says whether to go on reading, else
   * `socket.resume()` does. Where it is absent the socket is read as any other.
   */
  read?(take: (bytes: Buffer) => boolean, maxBytes: () => number): void;
  /** What is spoken to is a proxy that wants whole addresses in requests, and nothing but requests. */
  proxy?: Proxy;
}

/**
 * Both halves of the connection end separately. `names` are those of the address, the latest first. `standIn` is for an address at which nobody is, as
 * only a proxy knows its name: undefined if there is no proxy for the port.
 */
export type Dial = (address: string, port: number, names: readonly string[], standIn: boolean) => Dialed | undefined;

/** Read into by all sockets in turn: a buffer for each read, as Node makes them, would keep 128 KiB for each connection whose guest takes nothing. */
const shared = Buffer.allocUnsafeSlow(65_536);
/** Most answers are short, and a guest that opens thousands of connections may take none of them. */
const firstBytes = 16_384;

export function dialDirectly(address: string, port: number): Dialed {
  let take = (_bytes: Buffer) => true;
  let maxBytes = () => firstBytes;
  const onread = { buffer: () => shared.subarray(0, Math.min(shared.length, maxBytes())), callback: (bytes: number, into: Uint8Array) => take(Buffer.from(into.buffer, into.byteOffset, bytes)) };
  const socket = connect({ host: address, port, allowHalfOpen: true, onread });
  return {
    socket,
    opened: (done) => void socket.once("connect", () => done(undefined, Buffer.alloc(0))),
    read: (next, most) => {
      take = next;
      maxBytes = most;
    },
  };
}

/** For whom the socket itself is to be handed on. */
function dialPlainly(address: string, port: number): Dialed {
  const socket = connect({ host: address, port, allowHalfOpen: true });
  return { socket, opened: (done) => void socket.once("connect", () => done(undefined, Buffer.alloc(0))) };
}

export interface DialOptions {
  /** Opens TLS to a proxy; it is there if one of them needs it. */
  secure?: (proxy: Proxy) => Socket;
  /** Connections may be taken over. */
  plainly?: boolean;
}

export function dialBy(proxies: Proxies, { secure, plainly = false }: DialOptions = {}): Dial {
  const direct = plainly ? dialPlainly : dialDirectly;
  return (address, port, names, standIn) => {
    const route = proxies.routeTo(address, port, names);
    if (route === undefined) return standIn ? undefined : direct(address, port);
    const { proxy } = route;
    const socket = proxy.secure && secure !== undefined ? secure(proxy) : connect({ host: proxy.host, port: proxy.port, allowHalfOpen: true });
    const event = proxy.secure ? "secureConnect" : "connect";
    if (route.by === "requests") return { socket, proxy, opened: (done) => void socket.once(event, () => done(undefined, Buffer.alloc(0))) };
    // By name, as that is what a proxy's own rules are about.
    return { socket, opened: (done) => void socket.once(event, () => askProxy(socket, proxy, `${names[0] ?? address}:${port}`, done)) };
  };
}
