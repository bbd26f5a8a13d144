// The gateway against Linux' own TCP, UDP and resolver, in a network namespace with a TAP device. The guest's side is Python's sockets.
import { createHash, randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { tcpLimits } from "../../src/net/tcp/connections.js";
import { allowAll } from "./allow-all.js";
import { LinuxGuest, whyNoLinuxGuest, type LinuxGuestOptions } from "./linux-guest.js";

if (whyNoLinuxGuest !== undefined) console.log(`Skipped: ${whyNoLinuxGuest}`);

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function serve(take: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    take(socket);
  }).listen(0, "127.0.0.1");
  servers.push(server);
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

/** Runs Python in the guest, with `import socket, hashlib, time` done; gives what it prints. */
async function python(script: string, options: LinuxGuestOptions = {}): Promise<{ printed: string; guest: LinuxGuest }> {
  const guest = new LinuxGuest(["python3", "-c", `import socket, hashlib, time, struct, select, sys\n${script}`], options);
  const { stdout, stderr } = await guest.ended;
  expect(stderr).toBe("");
  return { printed: stdout, guest };
}

/** A server that says it is done, after the guest as a rule, and takes nothing. */
class Stuck extends Duplex {
  setNoDelay(): void {}
  setKeepAlive(): void {}
  setTimeout(): void {}
  resetAndDestroy(): void {
    this.destroy();
  }
  override _read(): void {
    setTimeout(() => this.push(null), 100);
  }
  override _write(): void {}
}

const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
const server = "203.0.113.5";

describe.skipIf(whyNoLinuxGuest !== undefined)("Linux as the guest", () => {
  test.each([1500, 9000, 65_521])("bytes go both ways and each half ends by itself, MTU %i", async (mtu) => {
    const down = randomBytes(6_000_001);
    const received = new Promise<string>((resolve) => {
      void serve((socket) => {
        const hash = createHash("sha256");
        socket.on("data", (chunk) => hash.update(chunk));
        socket.on("end", () => {
          resolve(hash.digest("hex"));
          socket.end(down);
        });
      }).then((port) => script(port));
    });
    let printed!: Promise<{ printed: string }>;
    const script = (port: number) => {
      printed = python(`
up = bytes(range(256)) * 20000
s = socket.create_connection(("${server}", ${port}))
s.sendall(up); s.shutdown(socket.SHUT_WR)
h = hashlib.sha256()
while d := s.recv(1 << 20): h.update(d)
print(h.hexdigest())`, { mtu });
    };
    expect(await received).toBe(sha256(Buffer.from(Array.from({ length: 5_120_000 }, (_, index) => index & 255))));
    expect((await printed).printed).toBe(`${sha256(down)}\n`);
  });

  test("1,000 connections at once, each with its own bytes", async () => {
    const port = await serve((socket) => socket.pipe(socket));
    const { printed, guest } = await python(`
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
all = [socket.create_connection(("${server}", ${port})) for i in range(1000)]
for i, s in enumerate(all): s.sendall(b"%05d" % i * 100)
for i, s in enumerate(all):
  s.shutdown(socket.SHUT_WR); got = b""
  while d := s.recv(1000): got += d
  assert got == b"%05d" % i * 100, got
print("same")`);
    expect(printed).toBe("same\n");
    expect(guest.audit.counters).toMatchObject({ connectionsTotal: 1000, bytesSent: 500_000, bytesReceived: 500_000 });
    expect(guest.records.filter(({ type }) => type === "close").map((each) => [each.bytes_sent, each.bytes_received, each.reason])).toEqual(Array.from({ length: 1000 }, () => [500, 500, undefined]));
  });

  test("what is refused, and what is reset, is so on the other side", async () => {
    let resetByGuest: string | undefined;
    const resetting = await serve((socket) => socket.once("data", () => socket.resetAndDestroy()));
    const told = new Promise<void>((resolve) => {
      void serve((socket) => socket.resume().on("error", (error: NodeJS.ErrnoException) => {
        resetByGuest = error.code;
        resolve();
      })).then((port) => go(port));
    });
    let ran!: ReturnType<typeof python>;
    const go = (port: number) => {
      ran = python(`
def tell(what):
  try: what()
  except OSError as e: print(e.__class__.__name__)
tell(lambda: socket.create_connection(("${server}", 1)))
tell(lambda: socket.create_connection(("100.96.0.1", 80)))
s = socket.create_connection(("${server}", ${resetting})); s.sendall(b"x")
tell(lambda: s.recv(1))
s = socket.create_connection(("${server}", ${port})); s.sendall(b"x")
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("100.96.0.1", 9)); u.send(b"x"); u.settimeout(200)
tell(lambda: u.recv(1))`);
    };
    await told;
    expect(resetByGuest).toBe("ECONNRESET");
    expect((await ran).printed).toBe("ConnectionRefusedError\nConnectionRefusedError\nConnectionResetError\nConnectionRefusedError\n");
  });

  test("a slow reader holds up the server, a slow server the guest, and both go on", async () => {
    const size = 40_000_000;
    let written = 0;
    const fast = await serve((socket) => {
      const block = Buffer.alloc(100_000, "y");
      const more = () => {
        while (written < size) {
          written += block.length;
          if (!socket.write(block)) return void socket.once("drain", more);
        }
        socket.end();
      };
      more();
    });
    let taken = 0;
    const slow = await serve((socket) => {
      socket.pause().on("data", (chunk) => (taken += chunk.length));
      socket.on("end", () => socket.end(String(taken)));
      setTimeout(() => socket.resume(), 2000);
    });
    let writtenWhileSlow = 0;
    const watch = setTimeout(() => (writtenWhileSlow = written), 1500);
    const { printed } = await python(`
s = socket.create_connection(("${server}", ${fast})); time.sleep(2); n = 0
while d := s.recv(1 << 20): n += len(d)
print(n)
s = socket.create_connection(("${server}", ${slow})); s.setblocking(False); sent = 0
try:
  while True: sent += s.send(b"z" * 100000)
except BlockingIOError: pass
print(sent < 20000000); s.setblocking(True)
s.sendall(b"z" * (${size} - sent)); s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode())`);
    clearTimeout(watch);
    expect(printed).toBe(`${size}\nTrue\n${size}\n`);
    expect(writtenWhileSlow).toBeLessThan(30_000_000);
  });

  test("what servers don't take of connections that the guest is done with counts, and the next ones may hold less", async () => {
    const { budgetBytes } = tcpLimits;
    Object.assign(tcpLimits, { budgetBytes: 1_048_576 });
    const { guest } = await python(`
import fcntl
all = []
for i in range(20):
  s = socket.create_connection(("${server}", 80)); s.sendall(b"z" * 900000); s.shutdown(socket.SHUT_WR)
  queued = lambda: struct.unpack("i", fcntl.ioctl(s, 0x5411, b"0000"))[0]
  before = -1
  while queued() not in (0, before): before = queued(); time.sleep(0.05)
  s.recv(1); all.append(s)`, { dial: () => ({ socket: new Stuck() as unknown as Socket, opened: (done) => setImmediate(done, undefined, Buffer.alloc(0)) }) });
    Object.assign(tcpLimits, { budgetBytes });
    expect(guest.audit.counters.connectionsTotal).toBe(20);
    expect(guest.audit.counters.bytesSent).toBeLessThan(9_000_000);
  });

  test("datagrams, and names over UDP and TCP", async () => {
    const echo = createSocket("udp4");
    echo.on("message", (data, from) => echo.send(Buffer.concat([Buffer.from("re:"), data]), from.port, from.address)).bind(0, "127.0.0.1");
    await once(echo, "listening");
    const addresses = Array.from({ length: 40 }, (_, index) => `198.51.100.${index + 1}`);
    const { printed, guest } = await python(`
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(200); u.connect(("${server}", ${echo.address().port}))
u.send(b"hey"); print(u.recv(100)); u.send(b"x" * 8900); print(len(u.recv(10000)))
u.connect(("${server}", 1)); u.send(b"x")
try: u.recv(1)
except OSError as e: print(e.__class__.__name__)
print(socket.gethostbyname("one.example.org"))
print(len(socket.gethostbyname_ex("many.example.org")[2]))
try: socket.gethostbyname("none.example.org")
except socket.gaierror as e: print(e)
print([a[4][0] for a in socket.getaddrinfo("one.example.org", 80, type=socket.SOCK_STREAM)])`, {
      resolve: async (name) => {
        const found = name === "one.example.org" ? ["203.0.113.7"] : name === "many.example.org" ? addresses : [];
        return { code: found.length > 0 ? 0 : 3, addresses: found, records: found.map((each) => ({ type: 1, ttlSeconds: 5, data: Buffer.from(each.split(".").map(Number)) })) };
      },
    });
    expect(printed).toBe("b're:hey'\n8903\nConnectionRefusedError\n203.0.113.7\n40\n[Errno -2] Name or service not known\n['203.0.113.7']\n");
    // Asked for as often as the C library likes to.
    expect([...new Set(guest.records.filter((each) => each.query === "A").map(({ type, name, reason }) => `${type} ${name} ${reason}`))]).toEqual(["dns one.example.org undefined", "dns many.example.org undefined", "dns none.example.org no such name"]);
    echo.close();
  });

  test("published ports lead into the guest", async () => {
    const guest = new LinuxGuest(["python3", "-c", `
import socket
t = socket.create_server(("0.0.0.0", 80)); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("0.0.0.0", 53)); print("ready", flush=True)
c, a = t.accept(); d = c.recv(100); c.sendall(a[0].encode() + b" " + d); c.close()
d, a = u.recvfrom(100); u.sendto(b"re:" + d, a)`]);
    await once(guest.child.stdout!, "data");
    const tcp = await guest.gateway.published.open({ protocol: "tcp", host_ip: "127.0.0.1", host_port: 0, guest_port: 80 });
    const closed = await guest.gateway.published.open({ protocol: "tcp", host_ip: "127.0.0.1", host_port: 0, guest_port: 81 });
    const udp = await guest.gateway.published.open({ protocol: "udp", host_ip: "127.0.0.1", host_port: 0, guest_port: 53 });
    await expect(guest.gateway.published.open({ ...tcp, guest_port: 82 })).rejects.toMatchObject({ code: "EXISTS" });
    const refused = connect(closed.host_port, "127.0.0.1");
    expect((await once(refused, "error"))[0]).toMatchObject({ code: "ECONNRESET" });
    const client = connect(tcp.host_port, "127.0.0.1");
    client.write("hello");
    let got = "";
    for await (const chunk of client) got += String(chunk);
    expect(got).toBe("100.96.0.1 hello");
    const peer = createSocket("udp4");
    peer.send("hey", udp.host_port, "127.0.0.1");
    expect(String((await once(peer, "message"))[0])).toBe("re:hey");
    peer.close();
    expect((await guest.ended).stderr).toBe("");
  });

  test("a new policy breaks off connections by what was said on them, and those on which nobody listened", async () => {
    const port = await serve((socket) => void socket.once("data", () => socket.write("hello")));
    // The first is broken off; what becomes of the second is seen by then, or soon.
    const script = (seconds: string) => `
import socket
def open(said):
  s = socket.create_connection(("${server}", ${port})); s.sendall(said); s.recv(5); return s
all = [open(b"GET / HTTP/1.1\\r\\nHost: %s.example\\r\\n\\r\\n" % name) for name in (b"a", b"b")]
print("ready", flush=True)
for s, seconds in zip(all, (None, ${seconds})):
  s.settimeout(seconds)
  try: s.recv(5)
  except OSError as e: print(e.__class__.__name__)`;
    const judged = new LinuxGuest(["python3", "-c", script("2")], { hook: { ...allowAll, checksHellos: true } });
    await once(judged.child.stdout!, "data");
    judged.gateway.setHook({ ...allowAll, checksHellos: true, helloName: ({ name }) => ({ allowed: name === "b.example", rule: "test" }) });
    expect((await judged.ended).stdout).toBe("ready\nConnectionResetError\nTimeoutError\n");
    const unjudged = new LinuxGuest(["python3", "-c", script("None")]);
    await once(unjudged.child.stdout!, "data");
    unjudged.gateway.setHook({ ...allowAll, checksHellos: true });
    expect((await unjudged.ended).stdout).toBe("ready\nConnectionResetError\nConnectionResetError\n");
  });

  test("a new policy breaks off what it no longer allows", async () => {
    const port = await serve((socket) => socket.write("hello"));
    const guest = new LinuxGuest(["python3", "-c", `
import socket
s = socket.create_connection(("${server}", ${port})); print(s.recv(5).decode(), flush=True)
try: s.recv(5)
except OSError as e: print(e.__class__.__name__)
try: socket.create_connection(("${server}", ${port}))
except OSError as e: print(e.__class__.__name__)`]);
    await once(guest.child.stdout!, "data");
    guest.gateway.setHook({ ...allowAll, connect: () => ({ allowed: false, rule: "none", reason: "nothing is allowed" }) });
    expect((await guest.ended).stdout).toBe("hello\nConnectionResetError\nConnectionRefusedError\n");
    expect(guest.audit.lastRefusals).toMatchObject([{ type: "refused", protocol: "tcp", address: server, port, rule: "none", reason: "nothing is allowed" }]);
  });
});
