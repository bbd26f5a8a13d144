/** Many clients, over Streamable HTTP: who may come in, how many, and with how much. */
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { BlockList, isIP, type AddressInfo } from "node:net";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, isLegacyRequest, localhostAllowedHostnames, localhostAllowedOrigins, validateHostHeader, validateOriginHeader, type McpServer } from "@modelcontextprotocol/server";
import { PyroError, systemCode, toPyroError } from "../base/error.js";
import { createServerWith, type CreateServerOptions } from "./server.js";
import { Sessions } from "./sessions.js";
import { createShared, type VmLimits } from "./shared.js";
import { forgetToken, keepToken, makeToken, readToken, showsToken } from "./token.js";

const path = "/mcp";
const maxBodyBytes = 8 << 20;
const maxConnections = 256;
const maxSessions = 64;
/** For whoever sends slowly to hold a connection, milliseconds. */
const headersMs = 10_000;
const requestMs = 60_000;

export interface ServeHttpOptions extends CreateServerOptions, VmLimits {
  /** An address or a name of this host. */
  host: string;
  /** 0 for any that is free. */
  port: number;
  /** What clients elsewhere call this host; needed for an address that is not loopback, as then everyone who reaches it and has the token can run commands. */
  allowRemote?: readonly string[];
  /** Holds the token; one is made when left out. */
  tokenFile?: string;
  /** Ends it. */
  signal: AbortSignal;
  /** Called once clients can come. `token` is there if it was made here. */
  onListening: (where: { url: string; tokenPath: string; token?: string }) => void;
  /** Told of what went wrong with a request. */
  onError?: (error: Error) => void;
}

/** Resolves when `signal` has ended it. Throws INVALID_ARGUMENT, DENIED. */
export async function serveHttp({ tools, ...options }: ServeHttpOptions): Promise<void> {
  const shared = createShared(options);
  await serveEach(() => createServerWith(tools === undefined ? {} : { tools }, shared), options);
  await shared.tidied();
}

/** The same for servers that are made elsewhere. */
export async function serveEach(create: () => McpServer, options: Omit<ServeHttpOptions, "tools" | keyof VmLimits>): Promise<void> {
  const { host, port, allowRemote = [], tokenFile, signal, onListening, onError = () => {} } = options;
  if (!isLoopback(host) && allowRemote.length === 0) {
    throw new PyroError("INVALID_ARGUMENT", `${host} is not a loopback address: whoever reaches it and has the token could run commands here, and the token would cross the network unencrypted.`, {
      hint: "Listen on 127.0.0.1, and reach it through an SSH tunnel or a proxy with TLS; or say --allow-remote NAME, with the name or address by which clients call this host.",
    });
  }
  const token = tokenFile === undefined ? makeToken() : await readToken(tokenFile);
  const sessions = new Sessions(create, maxSessions);
  const modern = createMcpHandler(create, { legacy: "reject", maxRequestBodySize: maxBodyBytes, maxSubscriptions: maxSessions, onerror: onError });
  const route = async (request: Request) => ((await isLegacyRequest(request, undefined, { maxRequestBodySize: maxBodyBytes })) ? sessions.handle(request) : modern.fetch(request));
  const handle = toNodeHandler({ fetch: route }, { maxRequestBodySize: maxBodyBytes, onerror: onError });

  const names = [...new Set([...localhostAllowedHostnames(), bracketed(host), ...allowRemote.map(bracketed)])];
  const origins = [...localhostAllowedOrigins(), ...allowRemote.map(bracketed)];
  const server = createHttpServer({ headersTimeout: headersMs, requestTimeout: requestMs, connectionsCheckingInterval: 5000, maxHeaderSize: 16_384 }, (request, response) => {
    if (!mayEnter(request, response, names, origins, token)) return;
    handle(request as Parameters<typeof handle>[0], response).catch((error: unknown) => {
      onError(toPyroError(error));
      response.destroy();
    });
  });
  server.maxConnections = maxConnections;
  const { address, port: bound } = await listen(server, host, port);
  const where = `${bracketed(address)}:${bound}`;
  let ownFile: string | undefined;
  try {
    // Not before: a server that can't listen must not take the file away from the one that does.
    if (tokenFile === undefined) ownFile = await keepToken(token, where);
    const tokenPath = tokenFile ?? ownFile!;
    onListening({ url: `http://${where}${path}`, tokenPath, ...(tokenFile === undefined && { token }) });
  } catch (error) {
    if (ownFile !== undefined) await forgetToken(ownFile).catch(onError);
    server.close();
    throw error;
  }
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  if (ownFile !== undefined) await forgetToken(ownFile).catch(onError);
  server.close();
  await Promise.all([modern.close(), sessions.close()]);
  server.closeAllConnections();
}

/** Host and Origin first: a page in a browser that found its way to us by DNS rebinding is told nothing, and can't guess tokens. */
function mayEnter(request: IncomingMessage, response: ServerResponse, names: string[], origins: string[], token: string): boolean {
  const host = validateHostHeader(request.headers.host, names);
  const origin = validateOriginHeader(request.headers.origin, origins);
  if (!host.ok) return refused(response, 403, host.message);
  if (!origin.ok) return refused(response, 403, origin.message);
  if (request.url?.split("?", 1)[0] !== path) return refused(response, 404, `The server is at ${path}.`);
  if (!showsToken(request.headers.authorization, token)) return refused(response, 401, "Send the token that the server told when it started: Authorization: Bearer TOKEN.", { "www-authenticate": 'Bearer realm="pyro"' });
  return true;
}

function refused(response: ServerResponse, status: number, message: string, headers: Record<string, string> = {}): false {
  response.writeHead(status, { ...headers, "content-type": "application/json", connection: "close" }); // its body is not read
  response.end(JSON.stringify({ jsonrpc: "2.0", error: { code: -32_000, message }, id: null }));
  return false;
}

async function listen(server: Server, host: string, port: number): Promise<AddressInfo> {
  try {
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen({ host, port }, resolve));
  } catch (error) {
    const why = { EADDRINUSE: "something else listens there", EACCES: "that takes more rights", EADDRNOTAVAIL: "this host has no such address", ENOTFOUND: "there is no such name" }[systemCode(error) ?? ""];
    throw new PyroError("DENIED", `Can't listen on ${host}:${port}: ${why ?? toPyroError(error).message}.`, { cause: error, hint: "Give another address or port; port 0 takes any that is free." });
  }
  server.removeAllListeners("error").on("error", () => {}); // a connection that could not be accepted is the client's trouble
  return server.address() as AddressInfo;
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

function isLoopback(host: string): boolean {
  const family = isIP(host);
  return family === 0 ? host === "localhost" : loopback.check(host, family === 4 ? "ipv4" : "ipv6");
}

function bracketed(name: string): string {
  return isIP(name) === 6 ? `[${name}]` : name;
}
