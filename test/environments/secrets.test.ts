/** Who gets to see what stands for a password: registries, token services and mirrors that send it elsewhere. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { openMirror } from "../../src/environments/debian/mirror.js";
import { RegistryClient } from "../../src/environments/registry/client.js";
import { Http } from "../../src/environments/registry/http.js";
import { useTemporary } from "./fixtures.js";

const temporary = useTemporary();
const before = { ...process.env };
const open: (() => void)[] = [];

afterEach(() => {
  for (const close of open.splice(0)) close();
});

afterAll(() => {
  process.env = before;
});

async function serve(take: (incoming: IncomingMessage, outgoing: ServerResponse, body: string) => void): Promise<string> {
  const server = createServer((incoming, outgoing) => {
    let body = "";
    incoming.on("data", (part) => (body += String(part)));
    incoming.on("end", () => take(incoming, outgoing, body));
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  open.push(() => (server.closeAllConnections(), server.close()));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function ask(host: string, auth: Record<string, string>): Promise<unknown> {
  await mkdir(join(temporary.path(), "docker"), { recursive: true });
  await writeFile(join(temporary.path(), "docker/config.json"), JSON.stringify({ auths: { [host]: auth } }));
  process.env["DOCKER_CONFIG"] = join(temporary.path(), "docker");
  process.env["PYRO_PLAIN_HTTP_REGISTRIES"] = host;
  const http = await Http.open();
  open.push(() => void http.close());
  const client = new RegistryClient(http, { kind: "registry", host, repository: "team/image", tag: "one" }, { onWait: () => {}, impatient: false });
  return client.get("manifests/one", {}, undefined).catch((error: unknown) => error);
}

test("an identity token does not follow a token service's redirect to somebody else", async () => {
  const seen: string[] = [];
  const thief = await serve((incoming, outgoing, body) => {
    seen.push(`${incoming.method} ${body}`);
    outgoing.end('{"token":"x"}');
  });
  for (const status of [302, 307, 308]) {
    const service = await serve((_, outgoing) => void outgoing.writeHead(status, { location: `http://${thief}/token` }).end());
    const registry = await serve((_, outgoing) => void outgoing.writeHead(401, { "www-authenticate": `Bearer realm="http://${service}/token"` }).end());
    expect(await ask(registry, { identitytoken: "identity" })).toMatchObject({ code: "REGISTRY", message: `${service} redirects what was sent to it to ${thief}, which is not done.` });
  }
  expect(seen).toEqual([]);
});

test("whom a registry sends us to for content does not decide where the password goes, and is named", async () => {
  const seen: (string | undefined)[] = [];
  const thief = await serve((incoming, outgoing) => {
    seen.push(incoming.headers.authorization);
    outgoing.end('{"token":"x"}');
  });
  for (const status of [401, 403]) {
    const elsewhere = await serve((_, outgoing) => void outgoing.writeHead(status, { "www-authenticate": `Bearer realm="http://${thief}/token"` }).end());
    const registry = await serve((_, outgoing) => void outgoing.writeHead(307, { location: `http://${elsewhere}/content` }).end());
    expect(await ask(registry, { username: "agent", password: "secret" })).toMatchObject({ code: "REGISTRY", message: `${registry} sends whoever wants manifests/one to ${elsewhere}, which answered ${status}.`, hint: expect.stringContaining("firewall") });
  }
  expect(seen).toEqual([]);
});

test("a registry that takes passwords and tokens, and says so in two headers, gets a token in whichever order", async () => {
  for (const turned of [false, true]) {
    const seen: string[] = [];
    const registry = await serve((incoming, outgoing) => {
      seen.push(`${incoming.url} ${incoming.headers.authorization ?? ""}`);
      if (incoming.url!.startsWith("/token")) return void outgoing.end('{"token":"t"}');
      if (incoming.headers.authorization === "Bearer t") return void outgoing.end("{}");
      const challenges = ['Basic realm="x"', `Bearer realm="http://${incoming.headers.host}/token"`];
      outgoing.writeHead(401, { "www-authenticate": turned ? challenges.reverse() : challenges }).end();
    });
    expect(await ask(registry, {})).toMatchObject({ status: 200 });
    expect(seen).toEqual(["/v2/team/image/manifests/one ", "/token?scope=repository%3Ateam%2Fimage%3Apull ", "/v2/team/image/manifests/one Bearer t"]);
  }
});

test("a password for a registry on this machine does not go over a network in the clear", async () => {
  const seen: string[] = [];
  const proxy = await serve((incoming, outgoing) => {
    seen.push(incoming.url!);
    outgoing.end('{"token":"x"}');
  });
  process.env["http_proxy"] = `http://${proxy}`;
  const registry = await serve((_, outgoing) => void outgoing.writeHead(401, { "www-authenticate": 'Bearer realm="http://tokens.invalid/token"' }).end());
  expect(await ask(registry, { username: "agent", password: "secret" })).toMatchObject({ code: "DENIED", message: `${registry} wants the password to be sent to tokens.invalid without TLS, which is not done.` });
  expect(seen).toEqual([]);
  delete process.env["http_proxy"];
});

test("a mirror's password with a percent sign in it", async () => {
  const seen: (string | undefined)[] = [];
  const mirror = await serve((incoming, outgoing) => {
    seen.push(incoming.headers.authorization);
    outgoing.writeHead(404).end();
  });
  process.env["PYRO_DEBIAN_MIRROR"] = `http://agent:100%@${mirror}/debian`;
  await expect(openMirror("bookworm", temporary.path(), undefined)).rejects.toMatchObject({ code: "REGISTRY", message: expect.stringContaining("the mirror answered 404") });
  expect(seen).toEqual([`Basic ${Buffer.from("agent:100%").toString("base64")}`]);
});
