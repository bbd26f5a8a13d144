// The guest's resolver: what it says for what it is asked, by whose leave, and what it remembers.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Audit, type AuditRecord } from "../../src/net/audit.js";
import { HostsFile, parseHosts } from "../../src/net/dns/hosts.js";
import { encodeName } from "../../src/net/dns/message.js";
import { ResolvedNames } from "../../src/net/dns/names.js";
import { UpstreamResolver, resolvedTo, type Resolution } from "../../src/net/dns/resolver.js";
import { DnsServer } from "../../src/net/dns/server.js";
import type { PolicyHook } from "../../src/net/policy-hook.js";
import { Secrets } from "../../src/net/secrets/secrets.js";
import { allowAll } from "./allow-all.js";

const yes = { allowed: true, rule: "yes" };
const no = { allowed: false, rule: "no", reason: "it is not wanted" };
const types = { A: 1, AAAA: 28, HTTPS: 65, TXT: 16 };

function serverWith(hook: Partial<PolicyHook>, resolve: (name: string, type: number) => Promise<Resolution>) {
  const records: AuditRecord[] = [];
  const names = new ResolvedNames();
  const server = new DnsServer({ hook: () => ({ ...allowAll, ...hook }), audit: new Audit(undefined, (record) => records.push(record)), names, secrets: new Secrets([]), resolve });
  const ask = async (name: string, type: keyof typeof types = "A") => {
    const message = Buffer.concat([Buffer.from("abcd01000001000000000000", "hex"), encodeName(name)!, Buffer.from([0, types[type], 0, 1])]);
    const answer = (await server.answer(message))!;
    const question = message.subarray(12);
    expect(answer.readUInt16BE(0)).toBe(0xabcd);
    expect(answer.subarray(12, 12 + question.length).equals(question)).toBe(true);
    const addresses = Array.from({ length: answer.readUInt16BE(6) }, (_, index) => [...answer.subarray(answer.length - 4 - 16 * index, answer.length - 16 * index)].join("."));
    return { code: answer.readUInt16BE(2) & 15, addresses: addresses.reverse() };
  };
  return { ask, names, records, server };
}

test("a name is asked for by the policy's leave, and its addresses are looked at one by one", async () => {
  const { ask, names, records } = serverWith(
    { name: ({ name }) => (name.endsWith(".test") ? yes : no), address: ({ address }) => (address.startsWith("10.") ? no : yes) },
    async (name) => resolvedTo(name === "mixed.test" ? ["10.0.0.1", "203.0.113.1"] : ["10.0.0.2"], 5),
  );
  expect(await ask("Mixed.TEST")).toEqual({ code: 0, addresses: ["203.0.113.1"] });
  expect(await ask("private.test")).toEqual({ code: 3, addresses: [] });
  expect(await ask("example.org")).toEqual({ code: 3, addresses: [] });
  expect(names.of("203.0.113.1")).toEqual(["mixed.test"]);
  expect(names.of("10.0.0.1")).toEqual([]);
  expect(records.map(({ type, name, address, rule }) => [type, name, address, rule])).toEqual([
    ["dns", "mixed.test", undefined, "yes"],
    ["refused", "private.test", "10.0.0.2", "no"],
    ["refused", "example.org", undefined, "no"],
  ]);
});

test("there is no IPv6, nothing beside the names, and no resolver is asked for either", async () => {
  const { ask } = serverWith({}, () => Promise.reject(new Error("asked")));
  expect(await ask("example.org", "AAAA")).toEqual({ code: 0, addresses: [] });
  expect(await ask("example.org", "HTTPS")).toEqual({ code: 0, addresses: [] });
});

test("a name that others read in another way than we do is none", async () => {
  const asked: string[] = [];
  const { server } = serverWith({}, async (name) => (asked.push(name), resolvedTo(["203.0.113.1"], 5)));
  const codeOf = async (name: string, type = 1) => (await server.answer(Buffer.concat([Buffer.from("abcd01000001000000000000", "hex"), encodeName(name)!, Buffer.from([0, type, 0, 1])])))!.readUInt16BE(2) & 15;
  // The first is evil.example to the resolver, the next ones 10.0.0.5 and 127.0.0.1 to a proxy.
  for (const name of ["evi\\108.example", "10.0.0.5:80/.evil.example", "u@127.evil.example", "a#.evil.example", 'a" rule="public.example', "a b.example", "a\0.example", "é.example", "[::1]"]) expect([name, await codeOf(name)]).toEqual([name, 1]);
  for (const name of ["_sip._tcp.a-b.example", "1e100.net"]) expect([name, await codeOf(name)]).toEqual([name, 0]);
  expect([await codeOf("0/25.113.0.203.in-addr.arpa", 12), await codeOf("0/25.113.0.203.in-addr.arpa")]).toEqual([0, 1]);
  expect(asked).toEqual(["_sip._tcp.a-b.example", "1e100.net", "0/25.113.0.203.in-addr.arpa"]);
});

test("what is remembered of names is bounded, and the oldest goes first", () => {
  const names = new ResolvedNames();
  for (let index = 0; index < 40; index++) names.add("203.0.113.1", `${index}.test`);
  expect(names.of("203.0.113.1")).toEqual(Array.from({ length: 32 }, (_, index) => `${39 - index}.test`));
  for (let index = 0; index < 8191; index++) names.add(`10.0.${index >> 8}.${index & 255}`, "many.test");
  expect(names.of("203.0.113.1")).toHaveLength(32); // used, so not the oldest
  names.add("10.9.9.9", "one.test");
  expect(names.of("10.0.0.0")).toEqual([]);
  expect(names.of("203.0.113.1")).toHaveLength(32);
});

test("a resolver of the host is asked; times to live are short, and what it does not know is said so", async () => {
  const upstream = createSocket("udp4").bind(0, "127.0.0.1");
  await once(upstream, "listening");
  upstream.on("message", (message, from) => {
    const question = message.subarray(12, message.indexOf(0, 12) + 5);
    const known = question.includes("known");
    const type = question.readUInt16BE(question.length - 4);
    const data = type === 1 ? Buffer.from([203, 0, 113, 9]) : Buffer.concat([Buffer.from([5]), Buffer.from("hello")]);
    const answer = Buffer.concat([message.subarray(0, 2), Buffer.from(known ? "81800001000100000000" : "81830001000000000000", "hex"), question, ...(known ? [Buffer.from("c00c", "hex"), question.subarray(-4), Buffer.from("00015180", "hex"), Buffer.from([0, data.length]), data] : [])]);
    upstream.send(answer, from.port, from.address);
  });
  const resolver = new UpstreamResolver([`127.0.0.1:${upstream.address().port}`]);
  expect(await resolver.resolve("known.test", 1)).toEqual({ code: 0, addresses: ["203.0.113.9"], records: [{ type: 1, ttlSeconds: 60, data: Buffer.from([203, 0, 113, 9]) }] });
  expect(await resolver.resolve("known.test", 16)).toEqual({ code: 0, addresses: [], records: [{ type: 16, ttlSeconds: 60, data: Buffer.from("\x05hello") }] });
  expect(await resolver.resolve("other.test", 1)).toEqual({ code: 3, addresses: [], records: [] });
  expect(await resolver.resolve("known.test", 99)).toEqual({ code: 0, addresses: [], records: [] });
  upstream.close();
});

test("the host's table of names", () => {
  expect([...parseHosts("127.0.0.1\tlocalhost Loop # x\n::1 localhost\n# 10.0.0.1 no\n10.0.0.5  db.corp DB\n10.0.0.6 db\n1.2.3 bad\n\n")]).toEqual([
    ["localhost", ["127.0.0.1"]],
    ["loop", ["127.0.0.1"]],
    ["db.corp", ["10.0.0.5"]],
    ["db", ["10.0.0.5", "10.0.0.6"]],
  ]);
  const directory = mkdtempSync(join(tmpdir(), "pyro-hosts-"));
  const file = join(directory, "hosts");
  const hosts = new HostsFile(file);
  expect(hosts.addressesOf("db")).toBe(undefined);
  writeFileSync(file, "10.0.0.5 db\n");
  expect(hosts.addressesOf("db")).toEqual(["10.0.0.5"]);
  writeFileSync(file, "10.0.0.66 db\n");
  expect(hosts.addressesOf("db")).toEqual(["10.0.0.66"]);
  rmSync(directory, { recursive: true });
});
