/** A real registry (Debian's docker-registry) on loopback, and a server before it that does to its answers what networks and busy registries do. */
import { randomUUID } from "node:crypto";
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { request as requestTls } from "node:https";
import { connect, type AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { keepChild, runChild } from "../../src/base/child.js";

export interface RealRegistry {
  /** `127.0.0.1:PORT` */
  host: string;
  close(): Promise<void>;
}

export interface RealOptions {
  /** Names and bcrypt hashes, a line each. */
  htpasswd?: string;
  tls?: { certificate: string; key: string };
}

/** Keeps all it has in `directory`. */
export async function startRegistry(directory: string, options: RealOptions = {}): Promise<RealRegistry> {
  for (;;) {
    const registry = await tryPort(directory, options, await freePort());
    if (registry !== undefined) return registry;
  }
}

/** Undefined if the port, free a moment ago, is somebody else's by now. */
async function tryPort(directory: string, options: RealOptions, port: number): Promise<RealRegistry | undefined> {
  const mark = randomUUID();
  await mkdir(directory, { recursive: true });
  const lines = [
    "version: 0.1", "log:", "  level: error", "storage:", "  filesystem:", `    rootdirectory: ${directory}/data`,
    "http:", `  addr: 127.0.0.1:${port}`, "  secret: none", "  headers:", `    X-Mark: ["${mark}"]`,
    ...(options.tls === undefined ? [] : ["  tls:", `    certificate: ${options.tls.certificate}`, `    key: ${options.tls.key}`]),
    ...(options.htpasswd === undefined ? [] : ["auth:", "  htpasswd:", "    realm: test", `    path: ${directory}/htpasswd`]),
  ];
  if (options.htpasswd !== undefined) await writeFile(join(directory, "htpasswd"), options.htpasswd);
  await writeFile(join(directory, "config.yml"), `${lines.join("\n")}\n`);
  const child = await keepChild("docker-registry", ["serve", join(directory, "config.yml")], { stdio: ["ignore", "ignore", "ignore"] });
  let hasEnded = false;
  void child.exited.finally(() => (hasEnded = true));
  const ask = options.tls === undefined ? request : requestTls;
  for (;;) {
    const isOurs = await new Promise<boolean>((resolve) => {
      const asked = ask({ host: "127.0.0.1", port, path: "/v2/", rejectUnauthorized: false }, (answer) => (answer.resume(), resolve(answer.headers["x-mark"] === mark)));
      asked.on("error", () => resolve(false));
      asked.end();
    });
    if (isOurs) return { host: `127.0.0.1:${port}`, close: async () => void (await child.end()) };
    if (hasEnded) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 100)); // and not a `sleep` that a test has made short
  }
}

/** Puts the image `tag` of a layout directory into the registry. */
export async function push(layout: string, tag: string, to: string, ...flags: string[]): Promise<void> {
  const { code, stderr } = await runChild("skopeo", ["copy", "--quiet", "--insecure-policy", "--all", "--dest-tls-verify=false", ...flags, `oci:${layout}:${tag}`, `docker://${to}`]);
  if (code !== 0) throw new Error(stderr);
}

/** What the server before the registry does with one request; what it leaves is passed on. True if it has answered. */
export type Fault = (incoming: IncomingMessage, outgoing: ServerResponse) => boolean | Promise<boolean>;

/** `change` may cut or spoil the body of a blob, and is told which request for blobs it is. */
export interface Front {
  host: string;
  /** Paths that were asked for, with the method and the range. */
  asked: string[];
  /** What each was asked with. */
  headers: IncomingMessage["headers"][];
  fault: Fault | undefined;
  change: ((body: Buffer, incoming: IncomingMessage) => { body: Buffer; cut?: boolean; unsaid?: boolean }) | undefined;
  close(): Promise<void>;
}

export async function startFront(behind: string): Promise<Front> {
  const front: Front = { host: "", asked: [], headers: [], fault: undefined, change: undefined, close: async () => {} };
  const [host, port] = behind.split(":");
  const server: Server = createServer((incoming, outgoing) => {
    front.asked.push(`${incoming.method} ${incoming.url}${incoming.headers.range === undefined ? "" : ` ${incoming.headers.range}`}`);
    front.headers.push(incoming.headers);
    void (async () => {
      if (await front.fault?.(incoming, outgoing)) return;
      const asked = request({ host, port: Number(port), path: incoming.url, method: incoming.method, headers: { ...incoming.headers, host: behind } }, (answer) => {
        const parts: Buffer[] = [];
        answer.on("data", (part: Buffer) => parts.push(part));
        answer.on("end", () => {
          const whole = Buffer.concat(parts);
          const { body, cut, unsaid } = incoming.url!.includes("/blobs/") ? (front.change?.(whole, incoming) ?? { body: whole }) : { body: whole, cut: false, unsaid: false };
          if (unsaid) delete answer.headers["content-length"];
          const length = cut || unsaid || body === whole ? {} : { "content-length": `${body.length}` };
          outgoing.writeHead(answer.statusCode!, { ...answer.headers, ...length });
          if (cut) outgoing.write(body, () => outgoing.destroy());
          else outgoing.end(body);
        });
      });
      asked.on("error", () => outgoing.destroy());
      asked.end();
    })();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  front.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  front.close = () => new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
  return front;
}

/** A certificate that nobody knows, for 127.0.0.1 or that name, with its key. */
export async function makeCertificate(directory: string, name = "IP:127.0.0.1"): Promise<{ certificate: string; key: string }> {
  await mkdir(directory, { recursive: true });
  const [certificate, key] = [join(directory, "certificate.pem"), join(directory, "key.pem")];
  const made = await runChild("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", `subjectAltName=${name}`, "-keyout", key, "-out", certificate]);
  if (made.code !== 0) throw new Error(made.stderr);
  await readFile(certificate);
  return { certificate, key };
}

/** A proxy that makes tunnels (CONNECT), all to one place, as names that nobody knows have none. */
export interface Proxy {
  host: string;
  /** What was asked for, with who asked. */
  asked: string[];
  close(): Promise<void>;
}

export async function startProxy(to: string): Promise<Proxy> {
  const proxy: Proxy = { host: "", asked: [], close: async () => {} };
  const [host, port] = to.split(":");
  const open = new Set<Duplex>();
  const server = createServer();
  server.on("connect", (incoming, client, head) => {
    proxy.asked.push(`${incoming.url} ${incoming.headers["proxy-authorization"] ?? ""}`);
    const behind = connect(Number(port), host, () => {
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      if (head.length > 0) behind.write(head);
      client.pipe(behind).pipe(client);
    });
    for (const [each, other] of [[client, behind], [behind, client]] as const) {
      open.add(each);
      each.on("error", () => other.destroy()).on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  proxy.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  proxy.close = () => new Promise((resolve) => {
    for (const each of open) each.destroy();
    server.close(() => resolve());
  });
  return proxy;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
