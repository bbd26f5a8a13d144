// What a guest says first: read in whatever pieces it comes, and refused where it could be read in two ways.
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { connect as connectTls } from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { readClientHello } from "../../src/net/inspect/client-hello.js";
import { Inspection } from "../../src/net/inspect/inspection.js";
import { parseRequestHead } from "../../src/net/inspect/request-head.js";
import { seeded } from "../environments/fixtures.js";

/** What Node's own TLS says first. */
async function helloOf(servername: string): Promise<Buffer> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connectTls({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", rejectUnauthorized: false, ...(servername !== "" && { servername }) }).on("error", () => {});
  const [socket] = await once(server, "connection");
  const [hello] = await once(socket, "data");
  client.destroy();
  socket.destroy();
  server.close();
  return hello as Buffer;
}

let hello: Buffer;
beforeAll(async () => {
  hello = await helloOf("Www.Example.ORG");
});

class Watched {
  readonly seen: string[] = [];
  readonly hosts: (string[] | string | undefined)[] = [];
  forwarded: Buffer = Buffer.alloc(0);
  credit = 0;
  readonly inspection = new Inspection({
    tls: (name) => {
      this.hosts.push(name);
      return "pass";
    },
    head: (head) => {
      this.hosts.push(head.hosts);
      return { allowed: true, changed: false };
    },
    other: () => this.seen.push("other"),
    malformed: (via, reason) => this.seen.push(`${via}: ${reason}`),
    forward: (bytes, credit) => {
      this.forwarded = Buffer.concat([this.forwarded, bytes]);
      this.credit += credit;
    },
  });

  /** In pieces of `size`. */
  push(bytes: Buffer | string, size = Infinity): this {
    const all = Buffer.from(bytes);
    for (let at = 0; at < all.length; at += size) this.inspection.push(all.subarray(at, Math.min(all.length, at + size)));
    return this;
  }
}

describe("TLS", () => {
  test.each([1, 5, 100, Infinity])("the name is found, in pieces of %d", (size) => {
    const watched = new Watched().push(hello, size);
    expect(watched.hosts).toEqual(["www.example.org"]);
    expect(watched.forwarded.equals(hello)).toBe(true);
    expect(watched.credit).toBe(hello.length);
  });

  test("nothing goes on before the name is known", () => {
    const watched = new Watched().push(hello.subarray(0, hello.length - 1));
    expect(watched.forwarded.length).toBe(0);
    watched.push(hello.subarray(hello.length - 1));
    expect(watched.forwarded.equals(hello)).toBe(true);
  });

  test("a hello that is spread over several records", () => {
    const body = hello.subarray(5);
    const records = [body.subarray(0, 3), body.subarray(3, 90), body.subarray(90)].map((part) => Buffer.concat([Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part]));
    expect(readClientHello(Buffer.concat(records))).toEqual({ name: "www.example.org" });
  });

  test("a hello without a name", async () => {
    expect(readClientHello(await helloOf(""))).toEqual({ name: undefined });
  });

  test("two names are none", () => {
    const one = Buffer.concat([Buffer.from([0, 0, 0, 9, 0, 7, 0, 0, 4]), Buffer.from("a.io")]);
    const extensions = Buffer.concat([one, one]);
    const body = Buffer.concat([Buffer.from([3, 3]), Buffer.alloc(32), Buffer.from([0, 0, 2, 0x13, 1, 1, 0, 0, extensions.length]), extensions]);
    const record = Buffer.concat([Buffer.from([22, 3, 1, 0, body.length + 4, 1, 0, 0, body.length]), body]);
    expect(readClientHello(record)).toBe("none");
    const single = Buffer.concat([Buffer.from([3, 3]), Buffer.alloc(32), Buffer.from([0, 0, 2, 0x13, 1, 1, 0, 0, one.length]), one]);
    expect(readClientHello(Buffer.concat([Buffer.from([22, 3, 1, 0, single.length + 4, 1, 0, 0, single.length]), single]))).toEqual({ name: "a.io" });
  });
});

describe("HTTP", () => {
  const requests = "GET /a HTTP/1.1\r\nHost: one.example\r\n\r\n" + "POST /b HTTP/1.1\r\nHost: two.example:80\r\nContent-Length: 5\r\n\r\nhello" + "\r\nPUT http://three.example/c HTTP/1.1\r\nhost:three.example \r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n" + "GET /d HTTP/1.0\r\n\r\n";
  const withoutEmptyLine = requests.replace("hello\r\nPUT", "helloPUT");

  test.each([1, 2, 7, 1000])("every request's host is seen, in pieces of %d", (size) => {
    const watched = new Watched().push(requests, size);
    expect(watched.seen).toEqual([]);
    expect(watched.hosts).toEqual([["one.example"], ["two.example:80"], ["three.example"], []]);
    expect(watched.forwarded.toString()).toBe(withoutEmptyLine);
    expect(watched.credit).toBe(requests.length);
  });

  test.each([
    ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "it has more than one Host"],
    ["GET / HTTP/1.1\r\nHost : a\r\n\r\n", "one of its headers is malformed"],
    ["GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "one of its headers is malformed"],
    ["GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "one of its headers is malformed"],
    ["GET / HTTP/1.1\nHost: a\n\n", "its lines don't end in CR LF"],
    ["\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "its lines don't end in CR LF"],
    ["GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "its request line is malformed"],
    ["GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "its request line is malformed"],
    ["GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "its request line is malformed"],
    ["GET a.example HTTP/1.1\r\nHost: a\r\n\r\n", "its target is malformed"],
    ["GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "its target is malformed"],
    ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "how its body ends is ambiguous"],
    ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "how its body ends is ambiguous"],
    ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "how its body ends is ambiguous"],
    ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "how its body ends is ambiguous"],
    ["POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "how its body ends is ambiguous"],
    ["GET /\r\nHost: a\r\n\r\n", "it has no version"],
    ["CONNECT a:80\r\nHost: a\r\n\r\n", "it has no version"],
    ["OPTIONS * RTSP/1.0\r\nHost: a\r\n\r\n", "its request line is malformed"],
    ["SOURCE / ICE/1.0\r\nHost: a\r\n\r\n", "its request line is malformed"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "its version 2.0 hides which host it is for"],
  ])("%j is refused", (text, reason) => {
    const watched = new Watched().push(text);
    expect(watched.seen).toEqual([`http: ${reason}`]);
    expect(watched.forwarded.length).toBe(0);
    const inPieces = new Watched().push(text, 1);
    expect(inPieces.seen).toEqual([`http: ${reason}`]);
    expect(inPieces.forwarded.length).toBe(0);
  });

  // Servers skip what stands in front of a request, nginx and Node any number of CR and LF; and some have patience with long lines.
  test.each(["\r\n", "\n", "\r\r\n", "\r\n \t\r\n", "\r\n".repeat(9000), `GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: allowed\r\n\r\n`])("nothing in front of a request hides it (%#)", (before) => {
    for (const size of [1000, Infinity]) {
      const watched = new Watched().push(before, size).push("GET / HTTP/1.1\r\nHost: hidden\r\n\r\n");
      expect(watched.seen).not.toContain("other");
      if (watched.hosts.length === 0) expect(watched.forwarded.length).toBe(0);
      else expect(watched.hosts).toEqual([["hidden"]]);
    }
  });

  test.each(["3 \nabc\r\n", "x\r\n", "-1\r\n", "3\r\nabcd\r\n", `${"f".repeat(13)}\r\n`])("a chunk %j is refused", (chunk) => {
    const watched = new Watched().push(`POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`);
    expect(watched.seen).toHaveLength(1);
    watched.push("GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n");
    expect(watched.hosts).toEqual([["a"]]);
    expect(watched.forwarded.toString()).not.toContain("smuggled");
  });

  test("heads and what is kept of them are bounded", () => {
    const watched = new Watched().push(`GET / HTTP/1.1\r\nX: ${"x".repeat(70_000)}`, 1000);
    expect(watched.seen).toEqual(["http: its head is longer than 65536 bytes (maxBytes)"]);
    expect(parseRequestHead(Buffer.from(`GET / HTTP/1.1\r\n${"a: b\r\n".repeat(257)}\r\n`))).toBe("it has more than 256 headers (maxHeaders)");
  });

  test("a switch of protocols opens the connection only if the server agrees", () => {
    const upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const agreed = new Watched().push(upgrade).push("\x81\x05hel");
    expect(agreed.forwarded.toString()).toBe(upgrade);
    agreed.inspection.answered(Buffer.from("HTTP/1.1 1"));
    agreed.inspection.answered(Buffer.from("01 Switching Protocols\r\n"));
    agreed.push("GET / HTTP/1.1\r\nHost: other\r\n\r\n");
    expect(agreed.forwarded.toString()).toBe(`${upgrade}\x81\x05helGET / HTTP/1.1\r\nHost: other\r\n\r\n`);
    expect(agreed.hosts).toEqual([["a"]]);
    const declined = new Watched().push(upgrade).push("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    declined.inspection.answered(Buffer.from("HTTP/1.1 200 OK\r\n"));
    expect(declined.hosts).toEqual([["a"], ["b"]]);
  });

  test("a switch is asked for by the first request alone: another one's answer could be mistaken for that of the switch", () => {
    const first = "GET /what-i-put-there HTTP/1.1\r\nHost: a\r\n\r\n";
    const watched = new Watched().push(`${first}GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
    expect(watched.forwarded.toString()).toBe(`${first}GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n`);
    watched.inspection.answered(Buffer.from("HTTP/1.1 101 is what the file has in it"));
    watched.push("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    expect(watched.hosts).toEqual([["a"], ["a"], ["b"]]);
    expect(new Watched().push(`${first}CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n`).seen).toEqual(["http: it asks for a tunnel behind another request"]);
  });

  test("an offer of HTTP/2 does not reach the server", () => {
    const watched = new Watched().push("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    expect(watched.forwarded.toString()).toBe("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
  });
});

describe("everything else", () => {
  test.each(["SSH-2.0-OpenSSH_9.2p1\r\n", "\0\0\0\x08\x04\xd2\x16/", "EHLO me\r\n", "*1\r\n$4\r\nPING\r\n", "REGISTER sip:example.org SIP/2.0\r\n", "AMQP\0\0\x09\x01", "\x16\x01\0"])("%j goes on at once", (text) => {
    const watched = new Watched().push(Buffer.from(text, "latin1"));
    expect(watched.seen).toEqual(["other"]);
    expect(watched.forwarded.toString("latin1")).toBe(text);
    watched.push("more");
    expect(watched.forwarded.toString("latin1")).toBe(`${text}more`);
  });

  test("a word without an end goes on after a while, but may not become a request then", async () => {
    const patient = new Watched().push("HEL");
    expect(patient.forwarded.length).toBe(0);
    const late = new Watched().push("GET");
    await expect.poll(() => patient.forwarded.toString()).toBe("HEL");
    patient.push("LO\n");
    expect(patient.forwarded.toString()).toBe("HELLO\n");
    await expect.poll(() => late.forwarded.toString()).toBe("GET");
    late.push(" / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(late.seen).toEqual(["http: it paused in its first line"]);
    expect(late.forwarded.toString()).toBe("GET");
  });

  test("what is held at the end goes on", () => {
    const watched = new Watched().push("GET");
    watched.inspection.end();
    expect(watched.forwarded.toString()).toBe("GET");
  });
});

test("no bytes make it throw, hold more than it may, or forward what was not sent", () => {
  const samples = ["GET /a HTTP/1.1\r\nHost: one.example\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"].map((each) => Buffer.from(each));
  for (let round = 0; round < 2000; round++) {
    const random = seeded(round);
    const sample = random(3) === 0 ? hello : samples[random(samples.length)]!;
    const bytes = Buffer.concat([Buffer.from(sample), Buffer.from(sample)]);
    for (let change = random(6); change > 0; change--) bytes[random(bytes.length)] = random(256);
    const watched = new Watched().push(bytes, 1 + random(bytes.length));
    watched.inspection.end();
    expect(watched.forwarded.length).toBeLessThanOrEqual(bytes.length);
    expect(watched.credit).toBeLessThanOrEqual(bytes.length);
  }
});
