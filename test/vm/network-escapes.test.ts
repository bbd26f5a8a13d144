// What a guest that is root tries, to reach what it may not: each refused, at once, on record, and nothing of it seen where it would have arrived.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hostLan, makeWorld, neighbour, other, web, type World } from "./network-world.js";
import { eventually, leftovers } from "./pyro.js";

let world: World | undefined;
let why = "";
/** One that may reach the public internet, one that may reach one name. */
const vms = { open: "", listed: "" };
/** A server on the host itself, on all its addresses; what it says is what reached it. */
let reachedHost = "";

beforeAll(async () => {
  const made = await makeWorld();
  if (typeof made === "string") return void (why = made);
  world = made;
  const host = world.onHost("python3", "-c", 'import socket\ns = socket.create_server(("0.0.0.0", 8080))\nprint("ready", flush=True)\nwhile True:\n  c, a = s.accept()\n  print("reached from", a[0], flush=True)\n  c.close()');
  await new Promise((resolve) => host.stdout!.once("data", resolve));
  host.stdout!.on("data", (chunk: Buffer) => (reachedHost += chunk.toString()));
  const create = async (...flags: string[]) => (await ok("vm", "create", "debian:12", ...flags, "--start")).trim();
  vms.open = await create("--network");
  vms.listed = await create("--allow-host", "www.example.com:80", "--allow-host", "www.example.com:443");
  for (const vm of Object.values(vms)) await ok("cp", new URL("network-frames.pl", import.meta.url).pathname, `${vm}:/tmp/frames.pl`);
});
afterAll(async () => {
  for (const vm of Object.values(vms)) if (vm !== "") await ok("vm", "delete", vm);
  world?.end();
  await eventually(() => leftovers(process.env["HOME"]!).length === 0); // the last one's keeper is still at it for a moment
});

async function ok(...args: string[]): Promise<string> {
  const result = await world!.pyro(args);
  if (result.status !== 0) throw new Error(`pyro ${args.join(" ")}: status ${result.status}\n${result.stderr}`);
  return result.stdout;
}

/** Its standard output and status, and the rules by which it was refused. */
async function tried(vm: keyof typeof vms, script: string): Promise<{ output: string; rules: string[] }> {
  const result = JSON.parse(await ok("vm", "exec", vms[vm], "--json", "--timeout-seconds", "100", "--", "sh", "-c", `(${script}) 2>/dev/null; echo "status $?"`)) as { stdout: string; refusals?: { rule: string }[] };
  return { output: result.stdout, rules: [...new Set((result.refusals ?? []).map(({ rule }) => rule))] };
}

beforeEach(({ skip }) => {
  if (world === undefined) skip(why);
  world!.asked();
  reachedHost = "";
});

interface Row {
  what: string;
  script: string;
  /** The script's exit status. */
  status: number;
  rule: string;
}

/**
 * All rows in one command, as each costs seconds where guests are emulated. Which refusals, and which questions to the servers, are a row's is told by a name
 * that is asked for before each.
 */
async function tryAll(vm: keyof typeof vms, rows: readonly Row[]): Promise<{ status: number; rules: string[]; asked: string[] }[]> {
  const mark = (row: number) => `row-${row}.example.net`;
  world!.asked();
  const script = rows.map((row, index) => `getent hosts ${mark(index)}; (${row.script}) >/dev/null 2>&1; echo $?`).join("\n");
  const statuses = (await ok("vm", "exec", vms[vm], "--quiet", "--timeout-seconds", "280", "--", "sh", "-c", script)).trim().split("\n").map(Number);
  const { records } = JSON.parse(await ok("vm", "audit", vms[vm], "--json")) as { records: { type: string; name?: string; rule?: string }[] };
  const asked = world!.asked();
  const between = <T>(all: readonly T[], isMark: (each: T, name: string) => boolean, row: number) => {
    const end = all.findIndex((each) => isMark(each, mark(row + 1)));
    return all.slice(all.findLastIndex((each) => isMark(each, mark(row))) + 1, end < 0 ? undefined : end);
  };
  return rows.map((_, row) => ({
    status: statuses[row]!,
    rules: [...new Set(between(records, ({ name }, marked) => name === marked, row).flatMap(({ type, rule }) => (type === "refused" ? [rule!] : [])))],
    asked: between(asked, (line, name) => line.endsWith(` ${name}`), row).filter((line) => line.startsWith("http") && !line.includes(" /redirect ")),
  }));
}

function table(vm: keyof typeof vms, cells: readonly (readonly [what: string, script: string, status: number, rule: string])[]): void {
  const rows = cells.map(([what, script, status, rule]): Row => ({ what, script, status, rule }));
  let results: Awaited<ReturnType<typeof tryAll>> = [];
  beforeAll(async () => {
    if (world !== undefined) results = await tryAll(vm, rows);
  });
  test.each(rows.map((row, index) => [row.what, row, index] as const))("%s", (_what, { status, rule }, index) => {
    expect(results[index]).toEqual({ status, rules: [rule], asked: [] });
    expect(reachedHost).toBe("");
  });
}

/** curl's: 6 a name that is not resolved, 7 a connection that is refused, 56 and 35 one that is reset. */
const get = (url: string, ...flags: string[]) => `curl -sS -m 60 -o /dev/null ${flags.join(" ")} '${url}'`;

describe("with the public internet open", () => {
  table("open", [
    ["a neighbour on the LAN", get(`http://${neighbour}/hello`), 7, "private 10.0.0.0/8"],
    ["the same in decimal", get("http://174260226/hello"), 7, "private 10.0.0.0/8"],
    ["the same in hexadecimal", get("http://0x0a630002/hello"), 7, "private 10.0.0.0/8"],
    ["the same in octal", get("http://012.0143.0.2/hello"), 7, "private 10.0.0.0/8"],
    ["another private network", get("http://192.168.77.1/hello"), 7, "private 192.168.0.0/16"],
    ["and another", get("http://172.20.0.1/hello"), 7, "private 172.16.0.0/12"],
    ["the host's address on the LAN", get(`http://${hostLan}:8080/`), 7, "host-address"],
    ["metadata of most clouds", get("http://169.254.169.254/latest/meta-data/"), 7, "link-local 169.254.0.0/16"],
    ["metadata of another cloud", get("http://100.100.100.200/hello"), 7, "shared 100.64.0.0/10"],
    ["metadata on an address that looks public", get("http://168.63.129.16/hello"), 7, "metadata 168.63.129.16/32"],
    ["a name for the LAN", get("http://private.example.com/hello"), 6, "private 10.0.0.0/8"],
    ["a name for loopback", get("http://loop.example.com:8080/"), 6, "loopback 127.0.0.0/8"],
    ["a name for metadata", get("http://meta.example.com/hello"), 6, "link-local 169.254.0.0/16"],
    ["a redirect to the LAN", get(`http://www.example.com/redirect?to=http://${neighbour}/hello`, "-L"), 7, "private 10.0.0.0/8"],
    ["a redirect to metadata", get("http://www.example.com/redirect?to=http://169.254.169.254/hello", "-L"), 7, "link-local 169.254.0.0/16"],
  ]);

  test("the gateway itself serves nothing but names", async () => {
    expect(await tried("open", get("http://100.96.0.1:8080/"))).toEqual({ output: "status 7\n", rules: [] });
    expect(reachedHost).toBe("");
  });

  test("IPv6, also as IPv4 that is mapped into it, fails at once", async () => {
    expect(await tried("open", `${get("http://[::ffff:10.99.0.2]/hello")} || ${get("http://[fd00:ec2::254]/hello")} || ${get("http://[64:ff9b::a63:2]/hello")}`)).toMatchObject({ output: "status 7\n" });
    expect(world!.asked()).toEqual([]);
  });

  test("rebinding: the second answer is refused, and so is its address", async () => {
    expect(await tried("open", `${get("http://flip.example.com/hello")}; echo $?; ${get("http://flip.example.com/hello")}; echo $?; ${get("http://flip.example.com/hello", "--connect-to", "flip.example.com:80:10.99.0.2:80")}`)).toEqual({ output: "0\n6\nstatus 7\n", rules: ["private 10.0.0.0/8"] });
    expect(world!.asked().filter((line) => line.startsWith("http"))).toEqual(["http/1.1 GET flip.example.com /hello authorization="]);
  });

  test("of a name's addresses only those that are public are there", async () => {
    expect((await tried("open", "getent ahostsv4 mixed.example.com | grep STREAM | cut -d ' ' -f 1")).output).toBe(`${web}\nstatus 0\n`);
  });

  test("datagrams to the LAN, to everybody and to groups", async () => {
    const send = (address: string) => `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Proto => "udp", Broadcast => 1, PeerAddr => "${address}:7") or die; send $s, "x", 0 or die; recv $s, my $b, 9, 0 or exit 5; exit 1'`;
    expect(await tried("open", send(neighbour))).toEqual({ output: "status 5\n", rules: ["private 10.0.0.0/8"] });
    expect((await tried("open", `perl -MIO::Socket::INET -e 'for (qw(255.255.255.255 100.96.0.255 224.0.0.251 239.1.2.3)) { my $s = IO::Socket::INET->new(Proto => "udp", Broadcast => 1, PeerAddr => "$_:7") or die; send $s, "x", 0 } exit 4'`)).output).toBe("status 4\n");
    expect(world!.asked()).toEqual([]);
  });
});

describe("with one name allowed", () => {
  test("that one works, and only there", async () => {
    expect(await tried("listed", "curl -sS http://www.example.com/hello; curl -sSk https://www.example.com/hello")).toEqual({ output: "hello from www.example.com over HTTP/1.1\nhello from www.example.com over HTTP/2.0\nstatus 0\n", rules: [] });
  });

  table("listed", [
    ["another name", get("http://other.example.com/hello"), 6, "not-allowed"],
    ["one below the allowed one", get("http://x.www.example.com/hello"), 6, "not-allowed"],
    ["one that ends like it", get("http://evilwww.example.com/hello"), 6, "not-allowed"],
    ["an address of somebody else", get(`http://${other}/hello`), 7, "unresolved"],
    ["another port of the allowed name", get("http://www.example.com:7/"), 7, "allow-host www.example.com:80"],
    ["a Host that lies", get("http://www.example.com/hello", "-H 'Host: other.example.com'"), 56, "name-mismatch"],
    ["a Host that is an address", get("http://www.example.com/hello", `-H 'Host: ${neighbour}'`), 56, "name-mismatch"],
    ["a server name that lies", get("https://other.example.com/hello", "-k", `--connect-to other.example.com:443:www.example.com:443`), 35, "name-mismatch"],
    ["a name of the same server", get("http://alias.example.com/hello", `--connect-to alias.example.com:80:www.example.com:80`), 56, "name-mismatch"],
    ["a proxy's request", get("http://other.example.com/hello", "-x http://www.example.com:80"), 56, "name-mismatch"],
    ["a tunnel asked of a web server", get("https://other.example.com/hello", "-x http://www.example.com:80"), 56, "name-mismatch"],
    ["a resolver that speaks HTTPS", get("https://9.9.9.9/dns-query?name=secret.example.com", "-k"), 7, "unresolved"],
    ["the name server of the host", get("http://9.9.9.9:53/"), 7, "unresolved"],
    ["a redirect to another name", get("http://www.example.com/redirect?to=http://other.example.com/hello", "-L"), 6, "not-allowed"],
  ]);

  test("a second request on a connection that began honestly", async () => {
    const script = `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new("www.example.com:80") or die; print $s "GET /hello HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n"; $s->flush; sysread $s, my $b, 9999 or die; print "first\\n"; print $s "GET /hello HTTP/1.1\\r\\nHost: other.example.com\\r\\n\\r\\n"; $s->flush; my $n = sysread $s, $b, 9999; print $n ? "second\\n" : "cut\\n"'`;
    expect((await tried("listed", script)).output).toBe("first\ncut\nstatus 0\n");
    expect(world!.asked().filter((line) => line.includes("other.example.com"))).toEqual([]);
  });

  test("questions by DNS to somebody else, or with secrets in them", async () => {
    const ask = (server: string, name: string, type: number) => `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "${server}:53") or die; my $q = pack("n6", 7, 256, 1, 0, 0, 0) . join("", map { chr(length) . $_ } split /\\./, "${name}") . pack("C n n", 0, ${type}, 1); send $s, $q, 0; my $r = recv $s, my $b, 999, 0; print defined $r ? "code " . (unpack("x2 n", $b) & 15) . " answers " . unpack("x6 n", $b) . "\\n" : "refused\\n"'`;
    expect(await tried("listed", ask("8.8.8.8", "www.example.com", 1))).toEqual({ output: "refused\nstatus 0\n", rules: ["unresolved"] });
    expect(await tried("listed", ask("100.96.0.1", "c2VjcmV0.other.example.com", 16))).toEqual({ output: "code 3 answers 0\nstatus 0\n", rules: ["not-allowed"] });
    expect(await tried("listed", ask("100.96.0.1", "c2VjcmV0.www.example.com", 1))).toEqual({ output: "code 3 answers 0\nstatus 0\n", rules: ["not-allowed"] });
    expect(await tried("listed", ask("100.96.0.1", "34.216.184.93.in-addr.arpa", 12))).toEqual({ output: "code 3 answers 0\nstatus 0\n", rules: ["not-allowed"] });
    expect(await tried("listed", get("http://8.8.8.8:53/"))).toEqual({ output: "status 7\n", rules: ["unresolved"] });
    expect(world!.asked()).toEqual([]);
  });

  test("QUIC, which would hide whom it is for", async () => {
    const script = `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "www.example.com:443") or die; send $s, "x" x 1200, 0; recv $s, my $b, 9, 0 or exit 5; exit 1'`;
    expect(await tried("listed", script)).toEqual({ output: "status 5\n", rules: ["quic"] });
  });
});

describe("frames that no honest guest sends", () => {
  test("an honest one opens a connection, so that what follows means something", async () => {
    expect((await tried("open", `perl /tmp/frames.pl ${web} 80 honest`)).output).toBe("honest open\nstatus 0\n");
    expect((await tried("open", `perl /tmp/frames.pl ${neighbour} 80 honest`)).output).toBe("honest reset\nstatus 0\n");
  });

  test("none of the others does", async () => {
    const names = [...readFileSync(new URL("network-frames.pl", import.meta.url), "utf8").matchAll(/^ {2}"?([a-z0-9-]+)"? => sub/gm)].map((match) => match[1]!).filter((name) => name !== "honest");
    expect(names).toEqual(["spoofed-address", "public-source", "spoofed-mac", "another-mac", "broadcast", "loose-source-route", "strict-source-route", "fragments", "overlapping-fragments", "ipv6-ethertype", "vlan", "lldp", "ipv6", "short-header", "length-beyond", "tunnel"]);
    const before = await connections();
    const { output } = await tried("open", `perl /tmp/frames.pl ${web} 80 ${names.join(" ")}`);
    expect(output).toBe(`${names.map((name) => `${name} nothing\n`).join("")}status 0\n`);
    expect(await connections()).toBe(before);
    // The network is what it was.
    expect((await tried("open", "curl -sS http://www.example.com/hello")).output).toBe("hello from www.example.com over HTTP/1.1\nstatus 0\n");
  });
});

async function connections(): Promise<number> {
  return (JSON.parse(await ok("vm", "network", vms.open, "--json")) as { counters: { connections_total: number } }).counters.connections_total;
}

test("all of it is on record", async () => {
  const { records } = JSON.parse(await ok("vm", "audit", vms.listed, "--json")) as { records: { type: string; rule?: string; name?: string }[] };
  expect(records).toContainEqual(expect.objectContaining({ type: "refused", rule: "name-mismatch", name: "other.example.com" }));
  expect(records).toContainEqual(expect.objectContaining({ type: "dns", name: "www.example.com" }));
  expect(records).toContainEqual(expect.objectContaining({ type: "close", protocol: "tcp" }));
});
