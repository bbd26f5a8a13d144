import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkHostCompat, networkOf, type NetworkRequest } from "../../src/core/network.js";
import { policyOf, readSecrets } from "../../src/core/network-words.js";

let directory: string;
beforeAll(() => void (directory = mkdtempSync(join(tmpdir(), "pyro-network-"))));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("nothing asked is no network", async () => {
  for (const request of [{}, { network: false }, { network: false, allowHosts: [], publish: [] }, { denyHosts: [] }]) expect(await networkOf(request)).toBe(undefined);
});

test.each([
  [{ network: true }, "public", [], []],
  [{ network: true, denyHosts: ["x.example"] }, "public", [], []],
  [{ network: true, allowNets: ["10.1.0.0/16"] }, "public", [], ["10.1.0.0/16"]],
  [{ network: true, allowHosts: ["a.example"] }, "allow_list", ["a.example"], []],
  [{ allowHosts: ["a.example"] }, "allow_list", ["a.example"], []],
  [{ allowHosts: ["a.example"], allowNets: ["10.1.0.0/16"] }, "allow_list", ["a.example"], ["10.1.0.0/16"]],
  [{ allowNets: ["10.1.0.0/16"] }, "allow_list", [], ["10.1.0.0/16"]],
  [{ publish: ["0:80"] }, "allow_list", [], []],
] satisfies [NetworkRequest, string, string[], string[]][])("%j", async (request, mode, allowHosts, allowNets) => {
  expect((await networkOf(request))!.policy).toMatchObject({ mode, allowHosts, allowNets });
});

test.each([
  [{ network: false, allowHosts: ["a.example"] }, "network is false, and something is asked of the network."],
  [{ denyHosts: ["a.example"] }, "Nothing of the network is allowed."],
  [{ allowHosts: ["a b"] }, 'allow_hosts has "a b"'],
  [{ network: true, secrets: ["TOKEN"] }, "A secret is NAME@HOST"],
  [{ network: true, secrets: ["TOKEN@*.example"] }, "A secret is NAME@HOST"],
  [{ network: true, secrets: ["TOKEN@a.example:443"] }, "A secret is NAME@HOST"],
  [{ network: true, secrets: ["TOKEN@10.0.0.1"] }, "A secret is NAME@HOST"],
  [{ network: true, secrets: ["1TOKEN@a.example"] }, "A secret is NAME@HOST"],
  [{ secrets: ["TOKEN@a.example"] }, "Nothing of the network is allowed."],
  [{ allowHosts: ["b.example"], secrets: ["TOKEN@a.example"] }, "The secret TOKEN is for a.example, which the guest may not reach."],
  [{ network: true, denyHosts: ["a.example"], secrets: ["TOKEN@a.example"] }, "The secret TOKEN is for a.example, which the guest may not reach."],
  [{ network: true, secrets: ["TOKEN@a.example", "TOKEN@a.example"] }, "The secret TOKEN is for a.example twice."],
  [{ network: true, secrets: ["TOKEN@a.example", "TOKEN@b.example=/file"] }, "The secret TOKEN has two values."],
  [{ network: true, publish: Array.from({ length: 65 }, (_, n) => `${n + 1}:80`) }, "65 ports are to be published; at most 64 can be."],
  [{ allowHosts: Array.from({ length: 400 }, (_, n) => `${"a".repeat(60)}.${"b".repeat(60)}.${"c".repeat(60)}.x${n}.example`) }, "bytes long together; at most 65536 are possible."],
] satisfies [NetworkRequest, string][])("%j is refused", async (request, message) => {
  await expect(networkOf(request)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining(message) as string });
});

test("what is not a secret's form is not repeated: it may be the value", async () => {
  await expect(networkOf({ network: true, secrets: ["TOKEN=hunter2"] })).rejects.toMatchObject({ message: expect.not.stringContaining("hunter2") as string });
});

test("published ports", async () => {
  const publish = async (...words: string[]) => (await networkOf({ publish: words }))!.publish;
  expect(await publish("8080:80", "0.0.0.0:0:53/udp", "127.0.0.2:65535:65535/tcp")).toEqual([
    { protocol: "tcp", hostIp: "127.0.0.1", hostPort: 8080, guestPort: 80 },
    { protocol: "udp", hostIp: "0.0.0.0", hostPort: 0, guestPort: 53 },
    { protocol: "tcp", hostIp: "127.0.0.2", hostPort: 65_535, guestPort: 65_535 },
  ]);
  for (const word of ["80", "80:", ":80", "65536:80", "80:0", "80:65536", "x:80", "80:80/sctp", "localhost:80:80", "1.2.3.256:80:80", "[::1]:80:80", "80:80 ", ""]) {
    await expect(publish(word), word).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining(`publish has ${JSON.stringify(word)}`) as string });
  }
});

test("another policy may also be nothing at all, if that is meant", () => {
  expect(policyOf({ network: false }, true)).toEqual({ mode: "allow_list", allowHosts: [], denyHosts: [], allowNets: [] });
  expect(() => policyOf({})).toThrow("Nothing of the network is allowed.");
});

test("secrets' values come from variables and files, and never into a message", async () => {
  process.env["PYRO_TEST_TOKEN"] = "hunter2";
  process.env["PYRO_TEST_BAD"] = "hunter2\r\nHost: evil.example";
  const file = join(directory, "token");
  writeFileSync(file, "hunter3\n");
  expect(await readSecrets([{ name: "PYRO_TEST_TOKEN", host: "a.example" }, { name: "X", host: "a.example", file }])).toEqual([
    { name: "PYRO_TEST_TOKEN", host: "a.example", value: "hunter2" },
    { name: "X", host: "a.example", file, value: "hunter3" },
  ]);
  const why = async (name: string, path?: string) => readSecrets([{ name, host: "a.example", ...(path !== undefined && { file: path }) }]).then(() => "", (error: { code: string; message: string }) => `${error.code} ${error.message}`);
  expect(await why("PYRO_TEST_NONE")).toBe("NOT_FOUND The secret PYRO_TEST_NONE has no value: there is no variable of that name.");
  expect(await why("PYRO_TEST_BAD")).toBe("INVALID_ARGUMENT The secret PYRO_TEST_BAD can't be used: a value has 1 to 16384 printable ASCII characters.");
  expect(await why("X", join(directory, "not-there"))).toMatch(/^NOT_FOUND The secret X can't be read: /);
  expect(await why("X", directory)).toMatch(/^[A-Z_]+ The secret X can't be read: /);
  writeFileSync(file, "x".repeat(20_000));
  expect(await why("X", file)).toMatch(/^[A-Z_]+ The secret X can't be (read|used): /);
  writeFileSync(file, "\n");
  expect(await why("X", file)).toMatch(/^INVALID_ARGUMENT /);
  for (const name of ["PYRO_TEST_TOKEN", "PYRO_TEST_BAD"]) delete process.env[name];
});

test("on the host there is only all of the network or none", async () => {
  const check = async (request: NetworkRequest) => checkHostCompat({ allowHostCompat: true }, await networkOf(request));
  for (const request of [{}, { network: true }, { network: true, allowNets: ["10.0.0.0/8"] }]) await check(request);
  for (const request of [{ allowHosts: ["a.example"] }, { network: true, denyHosts: ["a.example"] }, { network: true, publish: ["0:80"] }, { network: true, secrets: ["A@a.example"] }, { allowNets: ["10.0.0.0/8"] }]) {
    await expect(check(request)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("allow_host_compat can't go with") as string });
  }
  checkHostCompat({ allowHostCompat: false }, await networkOf({ allowHosts: ["a.example"] }));
});
