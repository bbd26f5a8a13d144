import { expect, test } from "vitest";
import { parseHostPattern } from "../../../src/core/policy/host-pattern.js";
import { contains, isWithin, parseAddress, parseNet } from "../../../src/core/policy/ipv4.js";
import { rulesOf } from "../../../src/core/policy/policy.js";
import { specialRangeOf, specialRanges } from "../../../src/core/policy/special-ranges.js";

test("addresses are four plain decimal numbers and nothing else", () => {
  expect(parseAddress("0.0.0.0")).toBe(0);
  expect(parseAddress("1.2.3.4")).toBe(16_909_060);
  expect(parseAddress("255.255.255.255")).toBe(4_294_967_295);
  for (const text of ["", "1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1.2.3.4 ", "0x7f.0.0.1", "2130706433", "127.1", "::ffff:1.2.3.4", "1.2.3.-4", "1.2.3.٤", "1.2.3.4\n", "1.2.3."]) {
    expect([text, parseAddress(text)]).toEqual([text, undefined]);
  }
});

test("networks have nothing behind their prefix", () => {
  expect(parseNet("10.1.0.0/16")).toEqual({ text: "10.1.0.0/16", first: 167_837_696, prefix: 16 });
  expect(parseNet("10.1.2.3")).toEqual({ text: "10.1.2.3", first: 167_838_211, prefix: 32 });
  expect(parseNet("0.0.0.0/0")).toEqual({ text: "0.0.0.0/0", first: 0, prefix: 0 });
  expect(parseNet("128.0.0.0/1")).toMatchObject({ prefix: 1 });
  for (const text of ["10.1.0.1/16", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8/8", "/8", "example.org", "10.0.0.0/8 ", "128.0.0.0/0"]) expect([text, parseNet(text)]).toEqual([text, undefined]);
});

test("what a network contains", () => {
  const net = parseNet("10.1.0.0/16")!;
  const each = (texts: string[]) => texts.map((text) => contains(net, parseAddress(text)!));
  expect(each(["10.1.0.0", "10.1.255.255"])).toEqual([true, true]);
  expect(each(["10.0.255.255", "10.2.0.0", "0.0.0.0", "255.255.255.255"])).toEqual([false, false, false, false]);
  expect(contains(parseNet("0.0.0.0/0")!, 4_294_967_295)).toBe(true);
  expect(isWithin(parseNet("10.1.0.0/16")!, parseNet("10.0.0.0/8")!)).toBe(true);
  expect(isWithin(parseNet("10.0.0.0/8")!, parseNet("10.0.0.0/8")!)).toBe(true);
  expect(isWithin(parseNet("10.0.0.0/7")!, parseNet("10.0.0.0/8")!)).toBe(false);
  expect(isWithin(parseNet("11.0.0.0/16")!, parseNet("10.0.0.0/8")!)).toBe(false);
});

test.each([
  ["Example.ORG", { text: "example.org", name: "example.org", below: false, port: undefined, address: undefined }],
  ["example.org.:443", { text: "example.org:443", name: "example.org", below: false, port: 443, address: undefined }],
  ["*.example.org", { text: "*.example.org", name: "example.org", below: true, port: undefined, address: undefined }],
  ["*", { text: "*", name: "", below: true, port: undefined, address: undefined }],
  ["*:80", { text: "*:80", name: "", below: true, port: 80, address: undefined }],
  ["localhost", { text: "localhost", name: "localhost", below: false, port: undefined, address: undefined }],
  ["_sip._tcp.a-b.example", { text: "_sip._tcp.a-b.example", name: "_sip._tcp.a-b.example", below: false, port: undefined, address: undefined }],
  ["bücher.example", { text: "xn--bcher-kva.example", name: "xn--bcher-kva.example", below: false, port: undefined, address: undefined }],
  ["10.1.2.3:8080", { text: "10.1.2.3:8080", name: "10.1.2.3", below: false, port: 8080, address: 167_838_211 }],
])("%s is a host", (text, pattern) => {
  expect(parseHostPattern(text)).toEqual(pattern);
});

test.each(["", "*.", "**", "*x.example", "a.*.example", "example.org:", "example.org:0", "example.org:65536", "example.org:x", "https://example.org", "example.org/path", "a b.example", "-a.example", "a..example", ".example", `${"a".repeat(64)}.example`, `${"a.".repeat(130)}example`, "::1", "[::1]:80", "10.1.2", "0x7f000001", "1.2.3.4.5", "10.1.0.0/16", "user@example.org", "127.0.0.1.", "a.123"])("%j is no host", (text) => {
  expect(parseHostPattern(text)).toBe(undefined);
});

test("each end of each special range, and its neighbours", () => {
  const name = (text: string) => specialRangeOf(parseAddress(text)!)?.name;
  expect(["0.0.0.0", "0.255.255.255", "1.0.0.0"].map(name)).toEqual(["this-host", "this-host", undefined]);
  expect(["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"].map(name)).toEqual([undefined, "private", "private", undefined]);
  expect(["100.63.255.255", "100.64.0.0", "100.96.0.1", "100.100.100.200", "100.127.255.255", "100.128.0.0"].map(name)).toEqual([undefined, "shared", "shared", "shared", "shared", undefined]);
  expect(["126.255.255.255", "127.0.0.0", "127.0.0.1", "127.255.255.255", "128.0.0.0"].map(name)).toEqual([undefined, "loopback", "loopback", "loopback", undefined]);
  expect(["169.253.255.255", "169.254.0.0", "169.254.169.254", "169.254.255.255", "169.255.0.0"].map(name)).toEqual([undefined, "link-local", "link-local", "link-local", undefined]);
  expect(["168.63.129.15", "168.63.129.16", "168.63.129.17"].map(name)).toEqual([undefined, "metadata", undefined]);
  expect(["172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"].map(name)).toEqual([undefined, "private", "private", undefined]);
  expect(["191.255.255.255", "192.0.0.0", "192.0.0.192", "192.0.0.255", "192.0.1.0", "192.0.2.0", "192.0.2.255", "192.0.3.0"].map(name)).toEqual([undefined, "reserved", "reserved", "reserved", undefined, "documentation", "documentation", undefined]);
  expect(["192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"].map(name)).toEqual([undefined, "reserved", "reserved", undefined]);
  expect(["192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"].map(name)).toEqual([undefined, "private", "private", undefined]);
  expect(["198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"].map(name)).toEqual([undefined, "benchmarking", "benchmarking", undefined]);
  expect(["198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"].map(name)).toEqual([undefined, "documentation", "documentation", undefined]);
  expect(["203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"].map(name)).toEqual([undefined, "documentation", "documentation", undefined]);
  expect(["223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255"].map(name)).toEqual([undefined, "multicast", "multicast", "reserved", "reserved", "broadcast"]);
  expect(specialRanges).toHaveLength(17);
});

test("a policy that makes no sense is refused, by the field and the word", () => {
  const policy = { mode: "allow_list", allowHosts: [] as string[], denyHosts: [] as string[], allowNets: [] as string[] } as const;
  expect(() => rulesOf({ ...policy, allowHosts: ["ok.example", "no host"] })).toThrow('allow_hosts has "no host"; each is a name');
  expect(() => rulesOf({ ...policy, denyHosts: ["x:99999"] })).toThrow('deny_hosts has "x:99999"');
  expect(() => rulesOf({ ...policy, allowNets: ["10.0.0.1/8"] })).toThrow('allow_nets has "10.0.0.1/8"; each is an IPv4 network');
  expect(() => rulesOf({ ...policy, allowHosts: Array.from({ length: 1025 }, (_, n) => `h${n}.example`) })).toThrow("allow_hosts has 1025 entries; at most 1024");
  expect(() => rulesOf({ ...policy, allowHosts: [1] as unknown as string[] })).toThrow("allow_hosts is a list of texts");
  expect(() => rulesOf({ ...policy, allowHosts: "x" as unknown as string[] })).toThrow("allow_hosts is a list of texts");
  expect(() => rulesOf({ ...policy, mode: "open" as "public" })).toThrow("mode is public or allow_list");
});
