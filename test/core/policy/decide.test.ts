import { expect, test } from "vitest";
import { makeHook } from "../../../src/core/policy/index.js";
import type { ConnectQuery, Decision, HelloQuery } from "../../../src/net/index.js";

const open = makeHook({ mode: "public" });
const hook = (allow_hosts: string[], more: Record<string, unknown> = {}) => makeHook({ mode: "allow_list", allow_hosts, ...more });

const connect = (policy: ReturnType<typeof makeHook>, target: string, names: string[] = [], more: Partial<ConnectQuery> = {}) => {
  const [address, port] = target.split(":");
  return says(policy.connect({ protocol: "tcp", address: address!, port: Number(port), own: false, names, ...more }));
};
const hello = (policy: ReturnType<typeof makeHook>, name: string | undefined, target: string, names: string[], more: Partial<HelloQuery> = {}) => {
  const [address, port] = target.split(":");
  return says(policy.helloName({ name, via: "tls", address: address!, port: Number(port), own: false, names, ...more }));
};
const ask = (policy: ReturnType<typeof makeHook>, name: string, type = "A") => says(policy.name({ name, type }));
const given = (policy: ReturnType<typeof makeHook>, name: string, address: string, own = false) => says(policy.address({ name, address, own }));
const says = ({ allowed, rule }: Decision) => `${allowed ? "yes" : "no"}: ${rule}`;

test("the public internet is open, and nothing else is", () => {
  expect(ask(open, "example.org")).toBe("yes: public");
  expect(given(open, "example.org", "93.184.216.34")).toBe("yes: public");
  expect(connect(open, "93.184.216.34:443")).toBe("yes: public");
  expect(connect(open, "93.184.216.34:443", ["example.org"], { protocol: "udp" })).toBe("yes: public");
  expect(connect(open, "127.0.0.1:80")).toBe("no: loopback 127.0.0.0/8");
  expect(connect(open, "0.0.0.0:80")).toBe("no: this-host 0.0.0.0/8");
  expect(connect(open, "10.1.2.3:80")).toBe("no: private 10.0.0.0/8");
  expect(connect(open, "192.168.1.1:53")).toBe("no: private 192.168.0.0/16");
  expect(connect(open, "169.254.169.254:80")).toBe("no: link-local 169.254.0.0/16");
  expect(connect(open, "168.63.129.16:80")).toBe("no: metadata 168.63.129.16/32");
  expect(connect(open, "100.96.0.1:22")).toBe("no: shared 100.64.0.0/10");
  expect(connect(open, "224.0.0.251:5353", [], { protocol: "udp" })).toBe("no: multicast 224.0.0.0/4");
  expect(connect(open, "93.184.216.34:22", [], { own: true })).toBe("no: host-address");
  expect(connect(open, "::1:80")).toBe("no: no-address");
});

test("a name does not make a private address public: not when it is resolved, and not when it is connected to", () => {
  expect(given(open, "rebind.example", "127.0.0.1")).toBe("no: loopback 127.0.0.0/8");
  expect(given(open, "rebind.example", "93.184.216.34", true)).toBe("no: host-address");
  expect(connect(open, "10.0.0.1:80", ["rebind.example"])).toBe("no: private 10.0.0.0/8");
  const listed = hook(["rebind.example"]);
  expect(given(listed, "rebind.example", "10.0.0.1")).toBe("no: private 10.0.0.0/8");
  expect(connect(listed, "10.0.0.1:80", ["rebind.example"])).toBe("no: private 10.0.0.0/8");
});

test("an allow-list is of names, and of their own ports", () => {
  const policy = hook(["example.org:443", "*.cdn.example", "git.example:22", "git.example:443"]);
  expect(ask(policy, "example.org")).toBe("yes: allow-host example.org:443");
  expect(ask(policy, "www.example.org")).toBe("no: not-allowed");
  expect(ask(policy, "evilexample.org")).toBe("no: not-allowed");
  expect(ask(policy, "example.org.evil.example")).toBe("no: not-allowed");
  expect(ask(policy, "a.b.cdn.example")).toBe("yes: allow-host *.cdn.example");
  expect(ask(policy, "cdn.example")).toBe("no: not-allowed");
  expect(ask(policy, "evilcdn.example")).toBe("no: not-allowed");
  expect(ask(policy, "")).toBe("no: not-allowed");
  expect(connect(policy, "93.184.216.34:443", ["example.org"])).toBe("yes: allow-host example.org:443");
  expect(connect(policy, "93.184.216.34:80", ["example.org"])).toBe("no: allow-host example.org:443");
  expect(connect(policy, "93.184.216.34:22", ["git.example"])).toBe("yes: allow-host git.example:22");
  expect(connect(policy, "93.184.216.34:443", ["git.example"])).toBe("yes: allow-host git.example:443");
  expect(connect(policy, "93.184.216.34:443")).toBe("no: unresolved");
  expect(connect(policy, "93.184.216.34:443", ["other.example", "example.org"])).toBe("yes: allow-host example.org:443");
  expect(connect(policy, "93.184.216.34:443", ["other.example"])).toBe("no: not-allowed"); // the policy has changed since it was resolved
  expect(connect(hook(["*:443"]), "93.184.216.34:443", ["any.example"])).toBe("yes: allow-host *:443");
  expect(connect(hook(["*"]), "93.184.216.34:443")).toBe("no: unresolved");
  expect(connect(hook([]), "93.184.216.34:443")).toBe("no: unresolved");
  expect(ask(hook([]), "example.org")).toBe("no: not-allowed");
});

test("what is denied is denied, by all its names or by what it says to the server", () => {
  const policy = makeHook({ mode: "public", deny_hosts: ["*.ads.example", "tracker.example:80", "93.184.216.40"] });
  expect(ask(policy, "x.ads.example")).toBe("no: deny-host *.ads.example");
  expect(ask(policy, "tracker.example")).toBe("yes: public"); // another port is open
  expect(connect(policy, "93.184.216.34:80", ["tracker.example"])).toBe("no: deny-host tracker.example:80");
  expect(connect(policy, "93.184.216.34:443", ["tracker.example"])).toBe("yes: public");
  expect(connect(policy, "93.184.216.34:443", ["x.ads.example", "cdn.example"])).toBe("yes: public"); // one of the two is not denied
  expect(connect(policy, "93.184.216.40:443")).toBe("no: deny-host 93.184.216.40");
  expect(hello(policy, "X.ads.example", "93.184.216.34:443", ["cdn.example"])).toBe("no: deny-host *.ads.example");
  expect(hello(policy, "tracker.example:80", "93.184.216.34:80", [], { via: "http" })).toBe("no: deny-host tracker.example:80");
  expect(hello(policy, "cdn.example", "93.184.216.34:443", [])).toBe("yes: public");
  expect(connect(policy, "93.184.216.34:443", ["cdn.example"], { protocol: "udp" })).toBe("no: quic");
  const both = hook(["*.example"], { deny_hosts: ["bad.example"] });
  expect(ask(both, "bad.example")).toBe("no: deny-host bad.example");
  expect(connect(both, "93.184.216.34:443", ["bad.example"])).toBe("no: deny-host bad.example");
});

test("only who names a network opens it", () => {
  const policy = hook([], { allow_nets: ["10.1.0.0/16", "93.184.216.0/24"] });
  expect(connect(policy, "10.1.2.3:80")).toBe("yes: allow-net 10.1.0.0/16");
  expect(connect(policy, "10.2.2.3:80")).toBe("no: private 10.0.0.0/8");
  expect(connect(policy, "93.184.216.34:80")).toBe("yes: allow-net 93.184.216.0/24");
  expect(connect(policy, "93.184.217.34:80")).toBe("no: unresolved");
  expect(given(policy, "db.corp.example", "10.1.2.3")).toBe("yes: allow-net 10.1.0.0/16");
  expect(ask(policy, "db.corp.example")).toBe("no: not-allowed");
  const everything = hook([], { allow_nets: ["0.0.0.0/0", "8.0.0.0/5"] });
  expect(connect(everything, "93.184.216.34:80")).toBe("yes: allow-net 0.0.0.0/0");
  expect(connect(everything, "10.1.2.3:80")).toBe("no: private 10.0.0.0/8");
  expect(connect(everything, "127.0.0.1:80")).toBe("no: loopback 127.0.0.0/8");
  expect(connect(everything, "169.254.169.254:80")).toBe("no: link-local 169.254.0.0/16");
  expect(connect(hook([], { allow_nets: ["0.0.0.0/1"] }), "0.0.0.0:80")).toBe("no: this-host 0.0.0.0/8");
});

test("the host's own addresses are opened one by one", () => {
  const own = { own: true };
  expect(connect(hook([], { allow_nets: ["192.168.1.0/24"] }), "192.168.1.7:80", [], own)).toBe("no: host-address");
  expect(connect(hook([], { allow_nets: ["192.168.1.7"] }), "192.168.1.7:80", [], own)).toBe("yes: allow-net 192.168.1.7");
  expect(connect(hook(["192.168.1.7:80"]), "192.168.1.7:80", [], own)).toBe("yes: allow-host 192.168.1.7:80");
  expect(connect(hook(["192.168.1.7:80"]), "192.168.1.7:81", [], own)).toBe("no: host-address");
  expect(connect(hook(["192.168.1.7:80"]), "192.168.1.7:81")).toBe("no: private 192.168.0.0/16");
  expect(connect(open, "127.0.0.1:80", [], own)).toBe("no: loopback 127.0.0.0/8");
  const all = hook([], { allow_nets: ["127.0.0.0/8", "127.0.0.9", "0.0.0.0/8"] });
  expect(connect(all, "127.0.0.1:80", [], own)).toBe("no: loopback 127.0.0.0/8");
  expect(connect(all, "127.0.0.5:80")).toBe("no: loopback 127.0.0.0/8"); // no card has it, and yet it is this host
  expect(connect(all, "0.0.0.0:80")).toBe("no: this-host 0.0.0.0/8");
  expect(connect(all, "127.0.0.9:80")).toBe("yes: allow-net 127.0.0.9");
});

test("what a guest says to a server agrees with the name that it resolved", () => {
  const policy = hook(["example.org", "other.example:443"]);
  const names = ["example.org"];
  expect(hello(policy, "example.org", "93.184.216.34:443", names)).toBe("yes: allow-host example.org");
  expect(hello(policy, "Example.ORG.", "93.184.216.34:443", names)).toBe("yes: allow-host example.org");
  expect(hello(policy, "example.org:8080", "93.184.216.34:8080", names, { via: "http" })).toBe("yes: allow-host example.org");
  expect(hello(policy, "evil.example", "93.184.216.34:443", names)).toBe("no: name-mismatch");
  expect(hello(policy, "other.example", "93.184.216.34:443", names)).toBe("no: name-mismatch"); // allowed, but not here
  expect(hello(policy, "93.184.216.34", "93.184.216.34:80", names, { via: "http" })).toBe("no: name-mismatch");
  expect(hello(policy, "", "93.184.216.34:80", names, { via: "http" })).toBe("no: name-mismatch");
  expect(hello(policy, "example.org\0evil.example", "93.184.216.34:443", names)).toBe("no: name-mismatch");
  expect(hello(policy, "example.org@evil.example", "93.184.216.34:80", names, { via: "http" })).toBe("no: name-mismatch");
  expect(hello(policy, undefined, "93.184.216.34:22", names)).toBe("yes: no-name");
  expect(hello(policy, "other.example", "93.184.216.34:80", ["other.example"], { via: "http" })).toBe("no: not-allowed"); // not on this port
  // Where the address itself was allowed, names add nothing.
  const literal = hook(["10.1.2.3:80"]);
  expect(hello(literal, "10.1.2.3", "10.1.2.3:80", [], { via: "http" })).toBe("yes: allow-host 10.1.2.3:80");
  expect(hello(open, "anything.example", "93.184.216.34:443", [])).toBe("yes: public");
});

test("a host that is no name, and to a lenient server perhaps a denied one, is refused where names are denied", () => {
  const policy = hook([], { mode: "public", deny_hosts: ["evil.example"] });
  for (const host of ["evil.example:123456", "evil.example:x", "evil.example/", "evil.example, a.example", "evil.example\0", "a@evil.example"]) expect([host, hello(policy, host, "93.184.216.34:80", [], { via: "http" })]).toEqual([host, "no: name-unreadable"]);
  expect(hello(policy, "a.example:80", "93.184.216.34:80", [], { via: "http" })).toBe("yes: public");
  expect(hello(policy, "93.184.216.34", "93.184.216.34:80", [], { via: "http" })).toBe("yes: public");
  expect(hello(hook([], { mode: "public", deny_hosts: ["93.184.216.35"] }), "a b", "93.184.216.34:80", [], { via: "http" })).toBe("yes: public");
});

test("QUIC, which hides the name, is refused where names matter, and other UDP is not", () => {
  const policy = hook(["example.org"]);
  expect(connect(policy, "93.184.216.34:443", ["example.org"], { protocol: "udp" })).toBe("no: quic");
  expect(connect(policy, "93.184.216.34:123", ["example.org"], { protocol: "udp" })).toBe("yes: allow-host example.org");
  expect(connect(hook([], { allow_nets: ["93.184.216.0/24"] }), "93.184.216.34:443", [], { protocol: "udp" })).toBe("yes: allow-net 93.184.216.0/24");
});

test("every refusal says why in a line, whatever the guest sends", () => {
  const policy = hook(["example.org:443"], { deny_hosts: ["bad.example"] });
  const refusals = [
    policy.name({ name: "x.example", type: "TXT" }),
    policy.name({ name: "bad.example", type: "A" }),
    policy.connect({ protocol: "tcp", address: "93.184.216.34", port: 1, own: false, names: [] }),
    policy.connect({ protocol: "tcp", address: "93.184.216.34", port: 1, own: false, names: ["example.org"] }),
    policy.helloName({ name: "a\nb\u001b[31m", via: "http", address: "93.184.216.34", port: 443, own: false, names: ["example.org"] }),
  ];
  expect(refusals.map(({ reason }) => reason)).toEqual([
    "x.example is not among the allowed hosts",
    "bad.example is denied",
    "no allowed name was resolved to 93.184.216.34",
    "port 1 of example.org is not allowed",
    'the HTTP host is "a\\nb\\u001b[31m", and that name was not resolved to 93.184.216.34',
  ]);
});

// Thousands of policies and questions, always the same ones.
test("properties that hold for every policy", () => {
  const next = random(7);
  const pick = <T>(from: readonly T[]): T => from[next() % from.length]!;
  const some = <T>(from: readonly T[]): T[] => from.filter(() => next() % 3 === 0);
  const names = ["a.example", "b.a.example", "c.b.a.example", "example", "d.example", "localhost"];
  const hosts = [...names, "*.a.example", "*.example", "*", "a.example:443", "*.example:80", "93.184.216.34", "10.1.2.3:80"];
  const nets = ["10.0.0.0/8", "10.1.2.0/24", "93.0.0.0/8", "0.0.0.0/0", "127.0.0.0/8", "169.254.169.254", "128.0.0.0/1"];
  const addresses = ["93.184.216.34", "10.1.2.3", "10.9.9.9", "127.0.0.1", "169.254.169.254", "8.8.8.8", "100.96.0.1", "255.255.255.255"];
  for (let round = 0; round < 20_000; round++) {
    const words = { mode: pick(["public", "allow_list"]), allow_hosts: some(hosts), deny_hosts: next() % 2 ? [] : some(hosts), allow_nets: some(nets) };
    const policy = makeHook(words);
    const query = { address: pick(addresses), port: pick([80, 443, 22]), own: next() % 8 === 0, names: some(names), protocol: pick(["tcp", "udp"] as const) };
    const { allowed, rule, reason } = policy.connect(query);
    const context = JSON.stringify({ words, query, rule });
    expect(rule.length, context).toBeGreaterThan(0);
    expect(reason === undefined, context).toBe(allowed);
    const special = !["93.184.216.34", "8.8.8.8"].includes(query.address);
    // What is special or the host's own is reached by a word that names an address, or not at all.
    if (allowed && (special || query.own)) expect(/^allow-net (?!0\.0\.0\.0\/0|128\.0\.0\.0\/1|93)|^allow-net 93\.184\.216\.34|^allow-host [0-9.:]+$/.test(rule), context).toBe(true);
    // Where only names are allowed, nobody gets anywhere without one.
    if (allowed && words.mode === "allow_list" && query.names.length === 0) expect(rule, context).toMatch(/^allow-net |^allow-host [0-9.:]+$/);
    // Less allowed and more denied never opens anything.
    const narrower = makeHook({ ...words, allow_hosts: some(words.allow_hosts), allow_nets: some(words.allow_nets), deny_hosts: hosts.filter((each) => words.deny_hosts.includes(each) || next() % 4 === 0) });
    if (!allowed) expect(narrower.connect(query).allowed, context).toBe(false);
    // What was not allowed to connect is not made right by what it says.
    const name = pick([...names, undefined]);
    if (!allowed && words.mode === "allow_list" && words.deny_hosts.length === 0 && query.protocol === "tcp" && name !== undefined) expect(policy.helloName({ ...query, name, via: "tls" }).allowed, context + name).toBe(false);
  }
});

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 8;
  };
}
