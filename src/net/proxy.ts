/** The way out of a company's network: connections for HTTPS go through its proxy by CONNECT (RFC 9110, 9.3.6), requests of plain HTTP to it by their whole address. */
import type { Socket } from "node:net";
import { PyroError } from "../base/error.js";
import { parseAddress } from "./addresses.js";

export interface ProxySettings {
  /** URLs; the scheme may be left out. A user and a password may be in them. */
  http?: string;
  https?: string;
  /** Names, addresses and networks, with commas between them, that are reached directly; `*` for all. */
  no_proxy?: string;
}

export interface Proxy {
  host: string;
  port: number;
  /** The proxy itself is spoken to in TLS. */
  secure: boolean;
  /** The value of Proxy-Authorization. */
  authorization: string | undefined;
}

export type Route = { by: "connect"; proxy: Proxy } | { by: "requests"; proxy: Proxy };

const maxAnswerBytes = 16_384;
const answerMs = 60_000;
const httpPort = 80;
const httpsPort = 443;

export class Proxies {
  readonly #http: Proxy | undefined;
  readonly #https: Proxy | undefined;
  readonly #direct: readonly ((name: string, port: number) => boolean)[];

  /** Throws INVALID_ARGUMENT. */
  constructor({ http, https, no_proxy: noProxy = "" }: ProxySettings = {}) {
    this.#http = http === undefined ? undefined : parseProxy(http);
    this.#https = https === undefined ? undefined : parseProxy(https);
    this.#direct = noProxy.split(/[\s,]+/).filter((each) => each !== "").map(directly);
  }

  /** Whether a proxy has to be spoken to in TLS. */
  get needTls(): boolean {
    return this.#http?.secure === true || this.#https?.secure === true;
  }

  /** Whether there is a proxy for servers of this name: it may know names that nobody here does. */
  isFor(name: string): boolean {
    return [httpPort, httpsPort].some((port) => this.routeTo("", port, [name]) !== undefined);
  }

  /** Undefined for what is reached directly: whatever the user named, and all that is neither HTTPS' port nor HTTP's. `names` are those of the address. */
  routeTo(address: string, port: number, names: readonly string[]): Route | undefined {
    const proxy = port === httpsPort ? this.#https : port === httpPort ? this.#http : undefined;
    if (proxy === undefined || [...names, address].some((name) => this.#direct.some((matches) => matches(name, port)))) return undefined;
    return { by: port === httpsPort ? "connect" : "requests", proxy };
  }
}

/** Asks the proxy behind `socket` for a connection to `target`. `done` gets what came behind its answer, or why there is no connection. Both have to be called once. */
export function askProxy(socket: Socket, { authorization }: Proxy, target: string, done: (failure: Error | undefined, rest: Buffer) => void): void {
  let answer = Buffer.alloc(0);
  const finish = (failure: Error | undefined, rest = Buffer.alloc(0)) => {
    clearTimeout(timer);
    socket.removeListener("data", take).removeListener("end", end);
    socket.pause();
    done(failure, rest);
  };
  const end = () => finish(new PyroError("DENIED", "the proxy closed the connection"));
  const timer = setTimeout(() => finish(new PyroError("TIMEOUT", "the proxy did not answer")), answerMs);
  const take = (chunk: Buffer) => {
    answer = Buffer.concat([answer, chunk]);
    const headBytes = answer.indexOf("\r\n\r\n");
    if (headBytes < 0 || headBytes > maxAnswerBytes) return answer.length > maxAnswerBytes ? finish(new PyroError("PROTOCOL", "the proxy's answer is too long")) : undefined;
    const status = /^HTTP\/1\.[01] ([0-9]{3})/.exec(answer.toString("latin1", 0, 16))?.[1];
    if (status?.startsWith("2") !== true) return finish(new PyroError("DENIED", `the proxy answered ${status ?? "with something else than HTTP"}`));
    finish(undefined, answer.subarray(headBytes + 4));
  };
  socket.once("close", () => clearTimeout(timer));
  socket.on("data", take).on("end", end);
  socket.write([`CONNECT ${target} HTTP/1.1`, `Host: ${target}`, ...(authorization === undefined ? [] : [`Proxy-Authorization: ${authorization}`]), "", ""].join("\r\n"));
}

function parseProxy(text: string): Proxy {
  const whole = /^[a-z0-9+.-]+:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.canParse(whole) ? new URL(whole) : undefined;
  // The text may hold a password, and so is not shown.
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw new PyroError("INVALID_ARGUMENT", "A proxy is a URL like http://proxy.example:3128.", { hint: "Check HTTP_PROXY and HTTPS_PROXY." });
  const secure = url.protocol === "https:";
  const credentials = url.username === "" ? undefined : `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (secure ? httpsPort : httpPort) : Number(url.port),
    secure,
    authorization: credentials && `Basic ${Buffer.from(credentials).toString("base64")}`,
  };
}

/** `example.org` and `.example.org` are for all names below as well; `10.0.0.0/8`; `host:port`. */
function directly(entry: string): (name: string, port: number) => boolean {
  if (entry === "*") return () => true;
  const net = /^([0-9.]+)\/([0-9]{1,2})$/.exec(entry);
  const base = net === null ? undefined : parseAddress(net[1]!);
  if (base !== undefined) {
    const shift = 32 - Math.min(32, Number(net![2]));
    return (name) => {
      const address = parseAddress(name);
      return address !== undefined && Math.floor(address / 2 ** shift) === Math.floor(base / 2 ** shift);
    };
  }
  const [, host = "", onPort] = /^\*?\.?([^:]*)(?::([0-9]+))?$/.exec(entry.toLowerCase()) ?? [];
  return (name, port) => host !== "" && (name === host || name.endsWith(`.${host}`)) && (onPort === undefined || Number(onPort) === port);
}
