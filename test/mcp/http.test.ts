import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { main, serveHttp, type Served } from "./served.js";

const home = mkdtempSync(join(tmpdir(), "pyro-mcp-http-"));
let server: Served;
beforeAll(async () => {
  server = await serveHttp([], { HOME: home });
});
afterAll(async () => {
  expect(await server.end()).toBe(0);
  rmSync(home, { recursive: true, force: true });
});

const initialize = { jsonrpc: "2.0", id: 1, method: "initialize", params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "test", version: "1" } } };

/** By hand, as fetch does not let a Host header be forged. */
function post(body: unknown, headers: Record<string, string> = {}, path = "/mcp", method = "POST"): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, path, method, headers: { "content-type": "application/json", accept: "application/json, text/event-stream", authorization: `Bearer ${server.token}`, ...headers } }, (answer) => {
      let text = "";
      answer.on("data", (chunk: Buffer) => (text += chunk.toString()));
      answer.on("end", () => resolve({ status: answer.statusCode!, headers: answer.headers, body: text }));
    });
    sent.on("error", reject);
    sent.end(typeof body === "string" ? body : JSON.stringify(body));
  });
}

test("it listens on loopback, says where, and keeps its token for this user alone", () => {
  expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:[0-9]+\/mcp$/);
  const path = join(home, `.local/state/pyro-mcp/mcp-token.${new URL(server.url).host}`);
  expect(server.stderr()).toContain(`token_file=${path}\n`);
  expect(readFileSync(path, "utf8")).toBe(`${server.token}\n`);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(server.token).toMatch(/^[A-Za-z0-9_-]{43}$/);
});

test("who may not come in, and why", async () => {
  expect(await post(initialize, { host: "evil.example" })).toMatchObject({ status: 403 });
  expect(await post(initialize, { host: `127.0.0.1.evil.example:${new URL(server.url).port}` })).toMatchObject({ status: 403 });
  expect(await post(initialize, { origin: "http://evil.example" })).toMatchObject({ status: 403 });
  expect(await post(initialize, { origin: "null" })).toMatchObject({ status: 403 });
  // A page that came by DNS rebinding learns nothing of the token, right or wrong.
  expect(await post(initialize, { host: "evil.example", authorization: "Bearer x" })).toMatchObject({ status: 403 });
  for (const authorization of ["", "Bearer", "Bearer ", "Bearer wrong", `Bearer ${server.token}x`, `Bearer ${server.token.slice(0, -1)}`, `Basic ${server.token}`, server.token]) {
    const answer = await post(initialize, { authorization });
    expect(answer, authorization).toMatchObject({ status: 401 });
    expect(answer.headers["www-authenticate"]).toBe('Bearer realm="pyro"');
    expect(answer.body).not.toContain(server.token);
  }
  expect(await post(initialize, {}, "/")).toMatchObject({ status: 404 });
  expect(await post(initialize, {}, "/mcp/../etc")).toMatchObject({ status: 404 });
});

test("who may: this host by any of its names, pages of this host with the token", async () => {
  for (const headers of [{}, { host: "localhost" }, { host: "127.0.0.1:1" }, { origin: "http://localhost:3000" }, { authorization: `bearer  ${server.token}` }]) {
    const answer = await post(initialize, headers);
    expect(answer, JSON.stringify(headers)).toMatchObject({ status: 200 });
    expect(answer.body).toContain('"pyro-mcp"');
  }
});

test("what is no protocol is refused", async () => {
  expect(await post("{")).toMatchObject({ status: 400 });
  expect(await post("[]")).toMatchObject({ status: 400 });
  expect(await post("null")).toMatchObject({ status: 400 });
  expect(await post(initialize, { "content-type": "text/plain" })).toMatchObject({ status: 415 });
  expect(await post({ jsonrpc: "2.0", id: 1, method: "tools/list" })).toMatchObject({ status: 400 });
  expect(await post({ jsonrpc: "2.0", id: 1, method: "tools/list" }, { "mcp-session-id": "nobody's" })).toMatchObject({ status: 404 });
  expect(await post("", {}, "/mcp", "GET")).toMatchObject({ status: 400 });
  expect([400, 404, 405]).toContain((await post("", {}, "/mcp", "PUT")).status);
  expect(await post(`{"jsonrpc":"2.0","id":1,"method":"${"x".repeat(9 << 20)}"}`).catch(() => ({ status: 413 }))).toMatchObject({ status: 413 });
  expect(await post(initialize, { padding: "x".repeat(20_000) })).toMatchObject({ status: 431 });
});

test("more sessions than there is room for: those that idle longest make room", async () => {
  const first = (await post(initialize)).headers["mcp-session-id"] as string;
  const ids = new Set([first]);
  for (let index = 0; index < 100; index++) ids.add((await post(initialize)).headers["mcp-session-id"] as string);
  expect(ids.size).toBe(101);
  const list = { jsonrpc: "2.0", id: 2, method: "tools/list" };
  expect(await post(list, { "mcp-session-id": first })).toMatchObject({ status: 404 });
  const last = [...ids].at(-1)!;
  expect(await post(list, { "mcp-session-id": last })).toMatchObject({ status: 200 });
  expect(await post("", { "mcp-session-id": last }, "/mcp", "DELETE")).toMatchObject({ status: 200 });
  expect(await post(list, { "mcp-session-id": last })).toMatchObject({ status: 404 });
});

test("connections beyond the limit are closed, and the others go on", async () => {
  const { hostname, port } = new URL(server.url);
  const sockets = Array.from({ length: 300 }, () => connect(Number(port), hostname).on("error", () => {}));
  const closed = new Promise((resolve) => sockets.forEach((socket) => socket.once("close", resolve)));
  await closed;
  for (const socket of sockets) socket.destroy();
  for (let attempt = 0; attempt < 1000 && (await post(initialize).catch(() => ({ status: 0 }))).status !== 200; attempt++) await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await post(initialize)).toMatchObject({ status: 200 });
});

test("1,000 calls, 50 at a time, in bounded memory", async () => {
  const envelope = { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" }, "io.modelcontextprotocol/clientCapabilities": {} };
  const call = (id: number) =>
    post({ jsonrpc: "2.0", id, method: "tools/call", params: { name: "vm_status", arguments: { vm_id: "vm-aaaaaaaa" }, _meta: envelope } }, { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "vm_status" });
  for (let round = 0; round < 20; round++) {
    const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => call(round * 50 + index)));
    for (const answer of answers) expect(answer).toMatchObject({ status: 200, body: expect.stringContaining("NOT_FOUND") as string });
  }
  expect(Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.child.pid}/status`, "utf8"))![1])).toBeLessThan(400_000);
});

test("what it refuses to do", () => {
  const pyro = (...args: string[]) => spawnSync(process.execPath, [main, "mcp", "serve", ...args], { encoding: "utf8", timeout: 200_000, env: { PATH: process.env["PATH"]!, HOME: home } });
  const open = pyro("--http", "0.0.0.0:0");
  expect(open).toMatchObject({ status: 2, stdout: "" });
  expect(open.stderr).toContain("0.0.0.0 is not a loopback address");
  expect(open.stderr).toContain("--allow-remote NAME");
  expect(pyro("--http", "nonsense").stderr).toContain("It is ADDRESS:PORT, as 127.0.0.1:0 or [::1]:8080.");
  expect(pyro("--http", "127.0.0.1:99999")).toMatchObject({ status: 2 });
  expect(pyro("--http", new URL(server.url).host).stderr).toContain("something else listens there");
  expect(readFileSync(join(home, `.local/state/pyro-mcp/mcp-token.${new URL(server.url).host}`), "utf8")).toBe(`${server.token}\n`); // of the one that listens
  expect(pyro("--tools", "some").stderr).toContain("Allowed choices are run, contract, all.");
  const token = join(home, "token");
  writeFileSync(token, "0123456789abcdef\n");
  chmodSync(token, 0o644);
  expect(pyro("--http", "127.0.0.1:0", "--token-file", token).stderr).toContain("can be read or changed by others");
  writeFileSync(token, "short\n");
  chmodSync(token, 0o600);
  expect(pyro("--http", "127.0.0.1:0", "--token-file", token).stderr).toContain("holds no token");
});

// On another port, and on the same one of another address.
test.each(["127.0.0.1:0", "127.0.0.2:PORT"])("two servers have a token each, in a file that goes with its server: %s", async (address) => {
  const tokens = () => readdirSync(join(home, ".local/state/pyro-mcp")).filter((name) => name.startsWith("mcp-token"));
  const before = tokens();
  const other = await serveHttp(["--http", address.replace("PORT", new URL(server.url).port)], { HOME: home });
  const fileOf = ({ url }: Served) => join(home, `.local/state/pyro-mcp/mcp-token.${new URL(url).host}`);
  const kept = [server, other].map((each) => (existsSync(fileOf(each)) ? readFileSync(fileOf(each), "utf8") : ""));
  expect(await other.end()).toBe(0);
  expect(kept).toEqual([`${server.token}\n`, `${other.token}\n`]);
  expect(tokens()).toEqual(before);
});

test("a token of one's own, and an address for others that was asked for", async () => {
  const token = join(home, "own-token");
  writeFileSync(token, "own-token-0123456789\n", { mode: 0o600 });
  const other = await serveHttp(["--token-file", token], { HOME: home });
  const answer = await fetch(other.url, { method: "POST", headers: { "content-type": "application/json", accept: "application/json, text/event-stream", authorization: "Bearer own-token-0123456789" }, body: JSON.stringify(initialize) });
  expect(answer.status).toBe(200);
  await answer.body!.cancel();
  expect(other.stderr()).not.toContain("own-token-0123456789");
  expect(await other.end()).toBe(0);
});
