// A company's proxy between the gateway and the world.
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { Audit, type AuditRecord } from "../../src/net/audit.js";
import { dialBy } from "../../src/net/dial.js";
import { resolvedTo } from "../../src/net/dns/resolver.js";
import { StandIns } from "../../src/net/dns/stand-ins.js";
import { parseRequestHead, type RequestHead } from "../../src/net/inspect/request-head.js";
import { Judge } from "../../src/net/judge.js";
import { Proxies } from "../../src/net/proxy.js";
import { Secrets } from "../../src/net/secrets/secrets.js";
import { allowAll } from "./allow-all.js";
import { LinuxGuest, whyNoLinuxGuest } from "./linux-guest.js";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function listening(server: Server): Promise<number> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

test("which way a connection goes", () => {
  const proxies = new Proxies({ http: "proxy:3128", https: "http://us%40er:p%3aw@proxy.example:8080/", no_proxy: "localhost, .corp.example,10.0.0.0/8 exact.example:443,192.0.2.7" });
  const way = (address: string, port: number, ...names: string[]) => proxies.routeTo(address, port, names)?.by;
  expect(way("203.0.113.5", 443, "www.example.org")).toBe("connect");
  expect(way("203.0.113.5", 80, "www.example.org")).toBe("requests");
  expect(way("203.0.113.5", 22, "www.example.org")).toBe(undefined);
  expect(way("203.0.113.5", 443, "a.corp.example")).toBe(undefined);
  expect(way("203.0.113.5", 443, "corp.example")).toBe(undefined);
  expect(way("203.0.113.5", 443, "xcorp.example")).toBe("connect");
  expect(way("203.0.113.5", 443, "exact.example")).toBe(undefined);
  expect(way("203.0.113.5", 80, "exact.example")).toBe("requests");
  expect(way("10.200.1.1", 443)).toBe(undefined);
  expect(way("11.0.0.1", 443)).toBe("connect");
  expect(way("192.0.2.7", 443)).toBe(undefined);
  expect(proxies.routeTo("203.0.113.5", 443, [])?.proxy).toEqual({ host: "proxy.example", port: 8080, secure: false, authorization: `Basic ${Buffer.from("us@er:p:w").toString("base64")}` });
  expect(new Proxies({ https: "http://proxy", no_proxy: "*" }).routeTo("203.0.113.5", 443, [])).toBe(undefined);
  expect(new Proxies({ https: "https://proxy" }).needTls).toBe(true);
  expect(() => new Proxies({ https: "socks5://proxy" })).toThrow("A proxy is a URL like http://proxy.example:3128.");
  expect(() => new Proxies({ https: "http://" })).toThrow("A proxy is a URL like http://proxy.example:3128.");
});

test("names that nobody here knows have addresses of their own", () => {
  const standIns = new StandIns();
  const first = standIns.addressFor("a.example");
  expect(first).toBe("198.18.0.2");
  expect(standIns.addressFor("b.example")).toBe("198.18.0.3");
  expect(standIns.addressFor("a.example")).toBe(first);
  expect([standIns.has(first), standIns.has("198.18.0.9"), standIns.has("x")]).toEqual([true, false, false]);
  const all = new Set(Array.from({ length: 200_000 }, (_, index) => standIns.addressFor(`${index}.example`)).slice(-8192));
  expect(all.size).toBe(8192);
  expect([...all].every((address) => standIns.has(address))).toBe(true);
  expect(standIns.has(first)).toBe(false);
});

test("what a proxy would take for an address, or for itself, has none", () => {
  for (const name of ["10.0.0.5", "127.1", "2130706433", "0x7f.1", "0x7f000001", "[::1]", "10.0.0.5:22", "a/b.example", "localhost", "a.localhost", "", "u@h.example"]) expect([name, StandIns.areFor(name)]).toEqual([name, false]);
  for (const name of ["a.example", "intranet", "_x.a-b.example", "10.example", "1e100.net"]) expect([name, StandIns.areFor(name)]).toEqual([name, true]);
});

test("a proxy is asked for where the guest has connected, whatever its requests say", () => {
  const records: AuditRecord[] = [];
  const proxy = { host: "proxy", port: 3128, secure: false, authorization: undefined };
  const asked = (request: string, names: string[] = ["a.example", "b.example"], port = 80) => {
    const judge = new Judge({ hook: () => allowAll, audit: new Audit(undefined, (record) => records.push(record)), secrets: new Secrets([]), address: "203.0.113.5", port, standIn: false, names: () => names, proxy });
    const head = parseRequestHead(Buffer.from(`${request}\r\n\r\n`)) as RequestHead;
    if (!judge.head(head).allowed) return "refused";
    return [head.target, ...head.headers.map(([, value]) => value)].join(" ");
  };
  expect(asked("GET /p?q HTTP/1.1\r\nHost: B.example")).toBe("http://b.example/p?q b.example");
  expect(asked("GET / HTTP/1.1\r\nHost: 10.0.0.5")).toBe("http://a.example/ a.example");
  expect(asked("GET / HTTP/1.1\r\nHost: b.example:22")).toBe("http://b.example/ b.example");
  expect(asked("GET http://169.254.169.254/latest HTTP/1.1\r\nHost: a.example")).toBe("http://a.example/latest a.example");
  expect(asked("GET https://10.0.0.5:8443?x HTTP/1.0")).toBe("http://a.example/?x");
  expect(asked("OPTIONS * HTTP/1.1\r\nHost: localhost", [])).toBe("http://203.0.113.5 203.0.113.5");
  expect(asked("CONNECT 10.0.0.5:22 HTTP/1.1\r\nHost: 10.0.0.5:22")).toBe("refused");
  expect(records).toMatchObject([{ type: "refused", rule: "proxy", name: "10.0.0.5:22" }]);
});

describe.skipIf(whyNoLinuxGuest !== undefined)("through it", () => {
  test("HTTPS by name, HTTP by whole addresses, and what it refuses is refused", async () => {
    const origin = await listening(createServer((socket) => void socket.on("error", () => {}).end("welcome")));
    const asked: string[] = [];
    const proxy = createHttpServer((request, response) => {
      asked.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"]}`);
      response.end("from the proxy");
    });
    proxy.on("connect", (request, socket) => {
      asked.push(`CONNECT ${request.url} ${request.headers["proxy-authorization"]}`);
      if (request.url!.startsWith("secret")) return void socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
      const through = connect(origin, "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        through.pipe(socket).pipe(through);
      });
    });
    const port = await listening(proxy);
    const url = `http://me:pw@127.0.0.1:${port}`;
    const known: Record<string, string> = { "www.example.org": "203.0.113.5", "secret.example.org": "203.0.113.6" };
    const standIns = new StandIns();
    const guest = new LinuxGuest(["python3", "-c", `
import socket, http.client
s = socket.create_connection(("www.example.org", 443)); print(s.recv(100).decode())
try: socket.create_connection(("secret.example.org", 443))
except OSError as e: print(e.__class__.__name__)
c = http.client.HTTPConnection("www.example.org"); c.request("GET", "/a?b", headers={"Proxy-Authorization": "mine"}); print(c.getresponse().read().decode())
s = socket.create_connection(("far.example.net", 443)); print(s.recv(100).decode())
try: socket.create_connection(("far.example.net", 22))
except OSError as e: print(e.__class__.__name__)
c.request("GET", "/c"); print(c.getresponse().read().decode())
s = socket.create_connection(("www.example.org", 80)); s.sendall(b"SSH-2.0-x\\r\\n")
try: print(s.recv(10))
except OSError as e: print(e.__class__.__name__)`], {
      isStandIn: (address) => standIns.has(address),
      dial: dialBy(new Proxies({ http: url, https: url })),
      resolve: async (name) => {
        const address = known[name];
        if (name === "far.example.net") return { ...resolvedTo([standIns.addressFor(name)], 5), isStandIn: true };
        return address === undefined ? { code: 3, records: [], addresses: [] } : { code: 0, addresses: [address], records: [{ type: 1, ttlSeconds: 5, data: Buffer.from(address.split(".").map(Number)) }] };
      },
    });
    const { stdout, stderr } = await guest.ended;
    expect(stderr).toBe("");
    expect(stdout).toBe("welcome\nConnectionRefusedError\nfrom the proxy\nwelcome\nConnectionRefusedError\nfrom the proxy\nConnectionResetError\n");
    const credentials = `Basic ${Buffer.from("me:pw").toString("base64")}`;
    expect(asked).toEqual([
      `CONNECT www.example.org:443 ${credentials}`,
      `CONNECT secret.example.org:443 ${credentials}`,
      `GET http://www.example.org/a?b ${credentials}`,
      `CONNECT far.example.net:443 ${credentials}`,
      `GET http://www.example.org/c ${credentials}`,
    ]);
    expect(guest.records.filter(({ type, reason }) => type === "close" && reason !== undefined && reason !== "the VM ended").map(({ name, reason }) => [name, reason])).toEqual([
      ["secret.example.org", "the proxy answered 403"],
      ["www.example.org", "refused"],
    ]);
  });
});
