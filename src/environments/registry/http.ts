/** HTTP to registries: the user's proxies and certificates, deadlines, redirects that carry no secret to somebody else. */
import { readFile } from "node:fs/promises";
import { BlockList, isIP } from "node:net";
import type { Readable } from "node:stream";
import { rootCertificates } from "node:tls";
import { Agent, EnvHttpProxyAgent, request, type Dispatcher } from "undici";
import { PyroError, systemCode } from "../../base/error.js";
import { cancelled } from "../../base/deadline.js";
import { harmlessLine } from "../../base/harmless.js";
import { settings } from "../../base/settings.js";
import { BrokenOff } from "../images/blobs.js";
import { atPace } from "./pace.js";

export const httpLimits = {
  connectMs: 30_000,
  /** Until an answer begins, and between two parts of it. */
  silenceMs: 60_000,
  maxHeaderBytes: 65_536,
  maxRedirects: 10,
} as const;

/** How long is waited for a connection, for an answer to begin, and between two parts of it. */
export interface Patience {
  connectMs: number;
  answerMs: number;
  partMs: number;
}

export const patience: Patience = { connectMs: httpLimits.connectMs, answerMs: httpLimits.silenceMs, partMs: httpLimits.silenceMs };
/** Where there is somebody else to ask: who can be reached at all, answers within that. */
export const impatience: Patience = { ...patience, connectMs: 4000, answerMs: 15_000 };

export interface Answer {
  status: number;
  /** By small letters; the first one of several, but of challenges all, as one list. */
  header(name: string): string | undefined;
  body: Readable;
  /** Where it came from at last. */
  url: URL;
}

export interface AskOptions {
  method?: "GET" | "POST";
  headers?: Record<string, string>;
  body?: string;
  /** Of `Authorization`. Goes to the origin that is asked, and nowhere else. */
  authorization?: string | undefined;
  signal: AbortSignal | undefined;
}

export class Http {
  private constructor(
    private readonly proxied: Dispatcher,
    private readonly direct: Dispatcher,
    private readonly unproxied: BlockList,
  ) {}

  /** Throws DENIED for certificates that the user names and that can't be read. */
  static async open({ connectMs, answerMs, partMs } = patience): Promise<Http> {
    const ca = await certificates();
    const common = { connect: { ca, timeout: connectMs }, headersTimeout: answerMs, bodyTimeout: partMs, maxHeaderSize: httpLimits.maxHeaderBytes, connections: 8 };
    const proxies = settings.proxies();
    const either = (name: string) => proxies[name] ?? proxies[name.toUpperCase()] ?? "";
    const agent = new EnvHttpProxyAgent({ ...common, requestTls: { ca }, proxyTls: { ca }, proxyTunnel: false, httpProxy: either("http_proxy"), httpsProxy: either("https_proxy"), noProxy: either("no_proxy") });
    return new Http(agent, new Agent(common), addressesOf(either("no_proxy")));
  }

  async close(): Promise<void> {
    await Promise.all([this.proxied.destroy(), this.direct.destroy()]);
  }

  /** An answer of any status, redirects followed. Throws BrokenOff for what may be better the next time, REGISTRY for what will not, CANCELLED. */
  async ask(address: URL, options: AskOptions): Promise<Answer> {
    let url = address;
    let { authorization } = options;
    for (let redirects = 0; ; redirects++) {
      const answer = await this.askOnce(url, { ...options, authorization });
      const location = answer.header("location");
      if (![301, 302, 303, 307, 308].includes(answer.status) || location === undefined) return answer;
      await drop(answer.body);
      if (redirects === httpLimits.maxRedirects) throw new PyroError("REGISTRY", `${address.host} redirects more than ${httpLimits.maxRedirects} times (maxRedirects).`);
      const next = parseUrl(location, url);
      if (next === undefined || !/^https?:$/.test(next.protocol) || (url.protocol === "https:" && next.protocol !== "https:")) throw new PyroError("REGISTRY", `${url.host} redirects to ${next === undefined ? "no address" : `${next.protocol}//${next.host}`}, which is not followed.`);
      if (next.origin !== url.origin) {
        authorization = undefined;
        // What is sent is a token that stands for a password.
        if (options.body !== undefined) throw new PyroError("REGISTRY", `${url.host} redirects what was sent to it to ${next.host}, which is not done.`, { hint: `Log in to the registry again with a password or a token of its own, or ask who runs ${url.host}.` });
      }
      url = next;
    }
  }

  private async askOnce(url: URL, { method = "GET", headers = {}, body, authorization, signal }: AskOptions): Promise<Answer> {
    const dispatcher = isLoopback(url.hostname) || isAmong(this.unproxied, url.hostname) ? this.direct : this.proxied; // a proxy's loopback is another one
    try {
      const answer = await request(url, { method, headers: { "user-agent": "pyro-mcp", ...headers, ...(authorization !== undefined && { authorization }) }, dispatcher, ...(body !== undefined && { body }), ...(signal && { signal }) });
      return {
        status: answer.statusCode,
        header: (name) => {
          const value = answer.headers[name];
          if (!Array.isArray(value)) return value;
          return name === "www-authenticate" ? value.join(", ") : value[0];
        },
        body: answer.body,
        url,
      };
    } catch (error) {
      throw networkError(error, url, signal);
    }
  }
}

/** What a failure on the wire means; also one in the middle of a body. */
export function networkError(error: unknown, url: URL, signal: AbortSignal | undefined): PyroError {
  if (signal?.aborted) return cancelled(signal);
  if (error instanceof PyroError) return error;
  const causes = error instanceof AggregateError ? [error, ...error.errors] : [error, error instanceof Error ? error.cause : undefined];
  const code = causes.map(systemCode).find((each) => each !== undefined) ?? "";
  const message = `${url.protocol}//${url.host} could not be reached: ${harmlessLine(error instanceof Error && error.message !== "" ? error.message : code || String(error), 300)}`;
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME/.test(code)) return new PyroError("REGISTRY", message, { hint: "Its certificate is not trusted here. PYRO_REGISTRY_CA names a file with the certificates of your own authority (PEM).", cause: error });
  if (isNotTls(code)) return new PyroError("REGISTRY", message, { hint: `It does not speak TLS. If it is meant to be asked without: PYRO_PLAIN_HTTP_REGISTRIES=${url.host}`, cause: error });
  if (code === "ENOTFOUND") return new PyroError("REGISTRY", message, { hint: "Check the name, and the network.", cause: error });
  return new BrokenOff(message, { cause: error });
}

/** OpenSSL's ways of saying that what came was no TLS. */
export function isNotTls(code: string): boolean {
  return /^(?:EPROTO|ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_PACKET_LENGTH_TOO_LONG|ERR_SSL_HTTP_REQUEST|ERR_SSL_RECORD_LAYER_FAILURE)$/.test(code);
}

export function isLoopback(hostname: string): boolean {
  const address = hostname.replace(/^\[|\]$/g, "");
  return address === "localhost" || address.endsWith(".localhost") || address === "::1" || (isIP(address) === 4 && address.startsWith("127."));
}

/** The addresses and ranges of `no_proxy` (`10.0.0.0/8`, `fd00::/8`), which undici takes for names. What is none is left to it. */
function addressesOf(noProxy: string): BlockList {
  const found = new BlockList();
  for (const each of noProxy.split(/[,\s]+/)) {
    const [, address = "", prefix] = /^\[?([0-9A-Fa-f.:]+)\]?(?:\/([0-9]{1,3}))?$/.exec(each) ?? [];
    const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)]!;
    const length = Number(prefix ?? bits);
    if (bits > 0 && length <= bits) found.addSubnet(address, length, bits === 32 ? "ipv4" : "ipv6");
  }
  return found;
}

function isAmong(addresses: BlockList, hostname: string): boolean {
  const address = hostname.replace(/^\[|\]$/g, "");
  return isIP(address) !== 0 && addresses.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}

/** The body as it comes; a connection that breaks is REGISTRY's error, as is one that is too slow (`pace.ts`), and what is not read is dropped. */
export async function* contentOf({ body, url }: Answer, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  try {
    yield* atPace(body as AsyncIterable<Buffer>, url.host);
  } catch (error) {
    throw networkError(error, url, signal);
  } finally {
    await drop(body);
  }
}

/** Reads a short body. Throws REGISTRY beyond `maxBytes`, and BrokenOff. */
export async function readBody({ body, url }: Answer, maxBytes: number, signal: AbortSignal | undefined): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let total = 0;
  try {
    for await (const part of atPace(body as AsyncIterable<Buffer>, url.host)) {
      total += part.length;
      if (total > maxBytes) throw new PyroError("REGISTRY", `${url.host} answered with more than ${maxBytes} bytes.`);
      parts.push(part);
    }
  } catch (error) {
    throw networkError(error, url, signal);
  }
  return Buffer.concat(parts, total);
}

/** Lets go of a body that nobody reads. */
export async function drop(body: Readable): Promise<void> {
  body.on("error", () => {});
  body.destroy();
}

export function parseUrl(text: string, base?: URL): URL | undefined {
  try {
    const url = new URL(text, base);
    url.username = "";
    url.password = "";
    return url;
  } catch {
    return undefined;
  }
}

/** Node knows Mozilla's certificates, and nothing of those that a company has put on its machines. */
async function certificates(): Promise<string[]> {
  const system = await readFile(settings.systemCertificates(), "utf8").catch(() => "");
  const named = settings.registryCa();
  const own = named === undefined ? "" : await readFile(named, "utf8").catch((cause: unknown) => {
    throw new PyroError("DENIED", `The certificates in ${named} can't be read.`, { hint: "PYRO_REGISTRY_CA names a file of certificates (PEM).", cause });
  });
  return [...(system === "" ? rootCertificates : [system]), ...(own === "" ? [] : [own])];
}
