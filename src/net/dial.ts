/** Connections from the host to where a guest wants to go: directly, or through a proxy. */
import { connect, type Socket } from "node:net";
import { askProxy, type Proxies, type Proxy } from "./proxy.js";

/** A connection that was begun. */
export interface Dialed {
  socket: Socket;
  /** Calls back once, when the server can be spoken to, with what it has said already; or with why it can't be. */
  opened(done: (failure: Error | undefined, said: Buffer) => void): void;
  /** What is spoken to is a proxy that wants whole addresses in requests, and nothing but requests. */
  proxy?: Proxy;
}

/**
 * Both halves of the connection end separately. `names` are those of the address, the latest first. `standIn` is for an address at which nobody is, as
 * only a proxy knows its name: undefined if there is no proxy for the port.
 */
export type Dial = (address: string, port: number, names: readonly string[], standIn: boolean) => Dialed | undefined;

export function dialDirectly(address: string, port: number): Dialed {
  const socket = connect({ host: address, port, allowHalfOpen: true });
  return { socket, opened: (done) => void socket.once("connect", () => done(undefined, Buffer.alloc(0))) };
}

/** `secure` opens TLS to a proxy; it is there if one of them needs it. */
export function dialBy(proxies: Proxies, secure?: (proxy: Proxy) => Socket): Dial {
  return (address, port, names, standIn) => {
    const route = proxies.routeTo(address, port, names);
    if (route === undefined) return standIn ? undefined : dialDirectly(address, port);
    const { proxy } = route;
    const socket = proxy.secure && secure !== undefined ? secure(proxy) : connect({ host: proxy.host, port: proxy.port, allowHalfOpen: true });
    const event = proxy.secure ? "secureConnect" : "connect";
    if (route.by === "requests") return { socket, proxy, opened: (done) => void socket.once(event, () => done(undefined, Buffer.alloc(0))) };
    // By name, as that is what a proxy's own rules are about.
    return { socket, opened: (done) => void socket.once(event, () => askProxy(socket, proxy, `${names[0] ?? address}:${port}`, done)) };
  };
}
