import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, type TestContext } from "vitest";
import { makeWorld, web, type World } from "./network-world.js";
import { eventually, leftovers } from "./pyro.js";

let world: World | undefined;
let why = "";
let vm = "";
/** What its start said. */
let created = "";

beforeAll(async () => {
  const made = await makeWorld();
  if (typeof made === "string") return void (why = made);
  world = made;
  created = (await ok(["vm", "create", "debian:12", "--network", "--ttl-seconds", "900", "--publish", "0:8000", "--publish", "0:8001/udp", "--start", "--json"])).stdout;
  vm = (JSON.parse(created) as { vm_id: string }).vm_id;
});
afterAll(async () => {
  if (vm !== "") await ok(["vm", "delete", vm]);
  world?.end();
  await eventually(() => leftovers(process.env["HOME"]!).length === 0); // the last one's keeper is still at it for a moment
});

/** In the guest of all tests here; standard output, of a command that must succeed. */
async function guest(script: string, flags: readonly string[] = []): Promise<string> {
  return (await ok(["vm", "exec", vm, "--quiet", "--timeout-seconds", "120", ...flags, "--", "sh", "-ec", script])).stdout;
}

async function ok(args: readonly string[], env: Record<string, string> = {}): Promise<{ stdout: string; stderr: string }> {
  const result = await world!.pyro(args, { env });
  if (result.status !== 0) throw new Error(`pyro ${args.join(" ")}: status ${result.status}\n${result.stderr}`);
  return result;
}

function needsWorld({ skip }: TestContext): void {
  if (world === undefined) skip(why);
}

/** What /bytes/N gives. */
function digestOfBytes(total: number): string {
  const hash = createHash("sha256");
  const block = Buffer.alloc(65_536);
  for (let at = 0, number = 0; at < total; at += block.length, number++) {
    for (let offset = 0; offset < block.length; offset += 4) block.writeUInt32LE((Math.imul(offset + number, 2_654_435_761) ^ number) >>> 0, offset);
    hash.update(block.subarray(0, Math.min(block.length, total - at)));
  }
  return hash.digest("hex");
}

test("the card is made up, by name and number, without IPv6", async (context) => {
  needsWorld(context);
  expect(await guest("cat /etc/resolv.conf; cat /sys/class/net/eth0/mtu /proc/sys/net/ipv6/conf/eth0/disable_ipv6; getent ahostsv4 www.example.com | head -n 1; getent ahostsv6 www.example.com || echo no IPv6")).toMatch(/^nameserver 100\.96\.0\.1\n9000\n1\n93\.184\.216\.34 +STREAM www\.example\.com\n(?:::ffff:93.*\n)*(?:no IPv6\n)?$/);
});

test("curl: HTTP/1.1, HTTP/2 over TLS, redirects, WebSocket", async (context) => {
  needsWorld(context);
  await ok(["cp", join(world!.directory, "ca.pem"), `${vm}:/tmp/ca.pem`]);
  expect(await guest("curl -sS http://www.example.com/hello; curl -sS --cacert /tmp/ca.pem https://www.example.com/hello; curl -sS --http1.1 --cacert /tmp/ca.pem https://other.example.com/hello; curl -sSL 'http://www.example.com/redirect?to=http://other.example.com/hello'")).toBe(
    "hello from www.example.com over HTTP/1.1\nhello from www.example.com over HTTP/2.0\nhello from other.example.com over HTTP/1.1\nhello from other.example.com over HTTP/1.1\n",
  );
  // The handshake of RFC 6455's example, and a masked text frame that comes back as it went.
  const socket = `use IO::Socket::INET; my $s = IO::Socket::INET->new("www.example.com:80") or die $!; print $s "GET /chat HTTP/1.1\\r\\nHost: www.example.com\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n"; $s->flush; while (<$s>) { print if /Accept/; last if /^\\r\\n$/ } my $f = pack("H*", "818537fa213d7f9f4d5158"); syswrite $s, $f; sysread $s, my $b, 100; print unpack("H*", $b), "\\n";`;
  expect(await guest(`perl -e '${socket}'`)).toBe("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n818537fa213d7f9f4d5158\n");
});

test("large transfers both ways are exact, and a slow reader loses nothing", async (context) => {
  needsWorld(context);
  const bytes = 30_000_000;
  const digest = digestOfBytes(bytes);
  expect(await guest(`curl -sS http://www.example.com/bytes/${bytes} | sha256sum`)).toBe(`${digest}  -\n`);
  expect(await guest(`curl -sS http://www.example.com/bytes/${bytes} -o /tmp/up; curl -sS -T /tmp/up http://other.example.com/sink; rm /tmp/up`)).toBe(`${bytes} ${digest}\n`);
  // Two megabytes a second, out of what comes much faster.
  expect(await guest("curl -sS --limit-rate 2M http://www.example.com/bytes/5000000 | sha256sum")).toBe(`${digestOfBytes(5_000_000)}  -\n`);
});

test("plain TCP with half a close, UDP, and many connections at once", async (context) => {
  needsWorld(context);
  const tcp = `use IO::Socket::INET; my $s = IO::Socket::INET->new("${web}:7") or die $!; print $s "a" x 200000; $s->flush; shutdown($s, 1); my $n = 0; while (sysread $s, my $b, 65536) { $n += length $b } print "$n\\n";`;
  const udp = `use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "${web}:7") or die $!; for my $n (0, 1, 1400, 8000) { send $s, "b" x $n, 0; recv $s, my $b, 65536, 0; print length $b, "\\n"; }`;
  expect(await guest(`perl -e '${tcp}'; perl -e '${udp}'`)).toBe("200000\n0\n1\n1400\n8000\n");
  const many = `use IO::Socket::INET; my @s = map { IO::Socket::INET->new("${web}:7") or die "$_: $!" } 1 .. 1000; for my $i (0 .. 999) { syswrite $s[$i], "x$i\\n" } my $right = 0; for my $i (0 .. 999) { my $t = readline $s[$i]; $right++ if $t eq "x$i\\n" } print "$right\\n";`;
  expect(await guest(`ulimit -n 4096; perl -e '${many}'`)).toBe("1000\n");
});

test("git clone over HTTP gives the same commit", async (context) => {
  needsWorld(context);
  const git = (directory: string, ...args: string[]) => execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@example.com", ...args], { cwd: directory, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  const work = join(world!.directory, "work");
  mkdirSync(work);
  git(work, "init", "-q", "-b", "main");
  writeFileSync(join(work, "file"), "content\n".repeat(100_000));
  git(work, "add", "file");
  git(work, "commit", "-q", "-m", "first");
  git(world!.directory, "clone", "-q", "--bare", work, join(world!.directory, "www/project.git"));
  git(join(world!.directory, "www/project.git"), "update-server-info");
  const commit = git(work, "rev-parse", "HEAD");
  expect(await guest("cd /tmp; git clone -q http://www.example.com/project.git 2>&1; cd project; git rev-parse HEAD; wc -l < file")).toBe(`${commit}\n100000\n`);
});

test("apt-get takes a package from a repository", async (context) => {
  needsWorld(context);
  const package_ = join(world!.directory, "package");
  mkdirSync(join(package_, "DEBIAN"), { recursive: true });
  mkdirSync(join(package_, "usr/share/pyro-test"), { recursive: true });
  writeFileSync(join(package_, "DEBIAN/control"), "Package: pyro-test\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: a test\n");
  writeFileSync(join(package_, "usr/share/pyro-test/hello"), "from a package\n");
  const deb = join(world!.directory, "www/pyro-test.deb");
  execFileSync("dpkg-deb", ["--root-owner-group", "--build", package_, deb], { stdio: "ignore" });
  const content = readFileSync(deb);
  writeFileSync(join(world!.directory, "www/Packages"), `${readFileSync(join(package_, "DEBIAN/control"), "utf8")}Filename: ./pyro-test.deb\nSize: ${content.length}\nSHA256: ${createHash("sha256").update(content).digest("hex")}\n\n`);
  expect(await guest("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] http://www.example.com/ ./' > /etc/apt/sources.list; apt-get -qq update; apt-get -qq install -y pyro-test >/dev/null 2>&1; cat /usr/share/pyro-test/hello")).toBe("from a package\n");
});

test("published ports: the host reaches the guest, by TCP and by UDP", async (context) => {
  needsWorld(context);
  const { published_ports: ports } = JSON.parse((await ok(["vm", "network", vm, "--json"])).stdout) as { published_ports: { protocol: string; host_ip: string; host_port: number; guest_port: number }[] };
  expect(ports.map(({ protocol, host_ip: ip, guest_port: port }) => [protocol, ip, port])).toEqual([["tcp", "127.0.0.1", 8000], ["udp", "127.0.0.1", 8001]]);
  // Where it was started, in its status, and with each result, the ports are the same.
  expect(JSON.parse(created)).toMatchObject({ published_ports: ports });
  expect(JSON.parse((await ok(["vm", "status", vm, "--json"])).stdout)).toMatchObject({ state: "started", published_ports: ports });
  expect((await ok(["vm", "status", vm])).stdout).toContain(`127.0.0.1:${ports[0]!.host_port}:8000/tcp, 127.0.0.1:${ports[1]!.host_port}:8001/udp\n`);
  expect(JSON.parse((await ok(["vm", "exec", vm, "--json", "--", "true"])).stdout)).toMatchObject({ exit_code: 0, published_ports: ports });
  const server = `use IO::Socket::INET; my $s = IO::Socket::INET->new(Listen => 5, LocalPort => 8000, ReuseAddr => 1) or die $!; for (1, 2) { my $c = $s->accept; my $n = 0; while (sysread $c, my $b, 65536) { $n += length $b } print $c "got $n from ", $c->peerhost, "\\n"; close $c; }`;
  const datagrams = `use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => "udp", LocalPort => 8001) or die $!; for (1, 2) { my $from = recv $s, my $b, 65536, 0; send $s, uc $b, 0, $from }`;
  await ok(["vm", "exec", vm, "--detach", "--job", "tcp", "--", "perl", "-e", server]);
  await ok(["vm", "exec", vm, "--detach", "--job", "udp", "--", "perl", "-e", datagrams]);
  await guest("until grep -q ':1F40 .* 0A ' /proc/net/tcp && grep -q ':1F41 ' /proc/net/udp; do sleep 0.1; done");
  const host = async (script: string) => {
    const child = world!.onHost("python3", "-c", script);
    let text = "";
    child.stdout!.on("data", (chunk: Buffer) => (text += chunk.toString()));
    child.stderr!.on("data", (chunk: Buffer) => (text += chunk.toString()));
    await new Promise((resolve) => child.once("close", resolve));
    return text;
  };
  for (const bytes of [5, 3_000_000]) expect(await host(`import socket\ns = socket.create_connection(("127.0.0.1", ${ports[0]!.host_port}))\ns.sendall(b"z" * ${bytes})\ns.shutdown(1)\nprint(s.makefile().read(), end="")`)).toBe(`got ${bytes} from 100.96.0.1\n`);
  expect(await host(`import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\ns.settimeout(60)\nfor t in (b"one", b"two"):\n  s.sendto(t, ("127.0.0.1", ${ports[1]!.host_port}))\n  print(s.recv(100).decode())`)).toBe("ONE\nTWO\n");
});

test("a port that is taken: the VM does not start, and who asked hears which", async (context) => {
  needsWorld(context);
  const holder = world!.onHost("python3", "-c", 'import socket\ns = socket.create_server(("127.0.0.1", 18099))\nprint("ready", flush=True)\ninput()');
  await new Promise((resolve) => holder.stdout!.once("data", resolve));
  const result = await world!.pyro(["run", "debian:12", "--publish", "18099:80", "--", "true"]);
  expect([result.status, result.stderr]).toEqual([125, expect.stringMatching(/error: .*18099/)]);
  holder.stdin!.end("\n");
});

test("without a network the guest is as it was", async (context) => {
  needsWorld(context);
  const result = await world!.pyro(["run", "debian:12", "--quiet", "--", "sh", "-c", "cat /sys/class/net/eth0/operstate; cat /proc/net/route | wc -l; grep nameserver /etc/resolv.conf; curl -sS -m 5 http://93.184.216.34/hello"]);
  expect(result.stdout).toBe("down\n1\n");
  expect(result.stderr).toContain("curl: (7)");
});

test("what was refused is told as it happens, in the result, and not to those who want no lines", async (context) => {
  needsWorld(context);
  const refused = await world!.pyro(["run", "debian:12", "--allow-host", "www.example.com", "--", "sh", "-c", "curl -sS http://www.example.com/hello; curl -sS -m 20 http://other.example.com/"]);
  expect(refused.stdout).toBe("hello from www.example.com over HTTP/1.1\n");
  expect(refused.status).toBe(6);
  expect(refused.stderr).toContain('[run] refused dns other.example.com rule="not-allowed" reason="other.example.com is not among the allowed hosts"\n');
  const quiet = await world!.pyro(["run", "debian:12", "--quiet", "--network", "--", "sh", "-c", "curl -s -m 20 http://10.99.0.2/"]);
  expect([quiet.status, quiet.stderr]).toEqual([7, ""]);
  const json = await world!.pyro(["run", "debian:12", "--json", "--network", "--publish", "0:80", "--", "sh", "-c", "curl -s -m 20 http://10.99.0.2/"]);
  expect(JSON.parse(json.stdout)).toMatchObject({ exit_code: 7, refusals: [{ protocol: "tcp", address: "10.99.0.2", port: 80, rule: "private 10.0.0.0/8", reason: "10.99.0.2 is a private address (10.0.0.0/8), and no --allow-net names it" }] });
  // A port that was chosen is told while there is still something to reach, and in the result.
  const hostPort = Number(/^\[run\] published tcp 127\.0\.0\.1:([0-9]+) guest_port=80\n$/.exec(json.stderr)?.[1]);
  expect(JSON.parse(json.stdout)).toMatchObject({ published_ports: [{ protocol: "tcp", host_ip: "127.0.0.1", host_port: hostPort, guest_port: 80 }] });
});
