// Programs that bring a network client of their own, the real ones, in a guest that may reach what they need and nothing else.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { collectClients, inGuest } from "./host-programs.js";
import { startSshd, type Sshd } from "./network-sshd.js";
import { makeWorld, type World } from "./network-world.js";
import { eventually, leftovers } from "./pyro.js";

let world: World | undefined;
let sshd: Sshd | undefined;
let why = "";
let vm = "";

beforeAll(async () => {
  const made = await makeWorld();
  if (typeof made === "string") return void (why = made);
  world = made;
  const clients = join(world.directory, "clients");
  why = collectClients(clients) ?? "";
  if (why !== "") return;
  sshd = await startSshd(world);
  vm = (await ok("vm", "create", "debian:12", "--allow-host", "www.example.com:443", "--allow-host", "other.example.com:2222", "--start")).trim();
  await ok("cp", clients, `${vm}:${inGuest}`);
  for (const [name, file] of [["ca.pem", join(world.directory, "ca.pem")], ["key", sshd.key], ["known_hosts", sshd.knownHosts]] as const) await ok("cp", file, `${vm}:/tmp/${name}`);
});
beforeEach(({ skip }) => {
  if (why !== "") skip(why);
  world!.asked();
});
afterAll(async () => {
  if (vm !== "") await ok("vm", "delete", vm);
  sshd?.end();
  world?.end();
  await eventually(() => leftovers(process.env["HOME"]!).length === 0); // the last one's keeper is still at it for a moment
});

async function ok(...args: string[]): Promise<string> {
  const result = await world!.pyro(args);
  if (result.status !== 0) throw new Error(`pyro ${args.join(" ")}: status ${result.status}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** Standard output of a script that must succeed, and that nothing was refused to. */
async function guest(script: string): Promise<string> {
  const { stdout, stderr, exit_code: status, refusals } = JSON.parse(await ok("vm", "exec", vm, "--json", "--timeout-seconds", "200", "--", "sh", "-ec", `PATH=${inGuest}/bin:$PATH\n${script}`)) as { stdout: string; stderr: string; exit_code: number; refusals?: object[] };
  if (status !== 0) throw new Error(`status ${status}\n${stdout}${stderr}`);
  expect(refusals).toBeUndefined();
  return stdout;
}

const requests = () => world!.asked().filter((line) => line.startsWith("http")).map((line) => line.replace(/ authorization=$/, ""));

const ssh = "ssh -p 2222 -i /tmp/key -o UserKnownHostsFile=/tmp/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes";

test("OpenSSH: a login by key, a command with its status, a transfer both ways, a port that is forwarded", async () => {
  expect(await guest(`chmod 600 /tmp/key; ${ssh} guest@other.example.com 'id -un; cat; exit 7' </etc/hostname || echo "status $?"`)).toMatch(/^guest\n\S+\nstatus 7\n$/);
  expect(sshd!.log()).toMatch(/Accepted publickey for guest from 10\.99\.0\.1 port [0-9]+ ssh2: ED25519/);
  const bytes = Buffer.from(Array.from({ length: 65_536 }, (_, index) => (index * 167) & 255));
  const digest = createHash("sha256");
  for (let block = 0; block < 256; block++) digest.update(bytes);
  writeFileSync(join(world!.directory, "block"), bytes);
  await ok("cp", join(world!.directory, "block"), `${vm}:/tmp/block`);
  expect(await guest(`for n in $(seq 256); do cat /tmp/block; done | ${ssh} guest@other.example.com cat | sha256sum`)).toBe(`${digest.digest("hex")}  -\n`);
  // The server's own network: the guest gets there by the one connection that it may have.
  const forward = `${ssh} -fN -M -S /tmp/control -o ExitOnForwardFailure=yes -L 8080:192.168.77.1:80 guest@other.example.com`;
  expect(await guest(`${forward}; curl -sS http://127.0.0.1:8080/hello; ssh -S /tmp/control -O exit other.example.com 2>/dev/null`)).toBe("hello from 127.0.0.1:8080 over HTTP/1.1\n");
});

test("OpenSSH: another port of the host that it may reach is refused, and so is a host whose key is another one", async () => {
  const result = await world!.pyro(["vm", "exec", vm, "--", "sh", "-c", `PATH=${inGuest}/bin:$PATH; ssh -p 22 other.example.com; echo $?; sed -i s/AAAA/AAAB/ /tmp/known_hosts; ${ssh} guest@other.example.com true; echo $?`]);
  expect(result.stdout).toBe("255\n255\n");
  expect(result.stderr).toContain('[exec] refused tcp ');
  expect(result.stderr).toContain('rule="allow-host other.example.com:2222"');
  expect(result.stderr).toContain("Host key verification failed.");
});

test("pip installs a package from an index over HTTPS", async () => {
  const wheel = "pyro_test-1.0-py3-none-any.whl";
  const simple = join(world!.directory, "www/simple/pyro-test");
  mkdirSync(simple, { recursive: true });
  const files = { "pyro_test.py": "word = 'from a wheel'\n", "pyro_test-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pyro-test\nVersion: 1.0\n", "pyro_test-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n" };
  const record = Object.entries(files).map(([path, text]) => `${path},sha256=${createHash("sha256").update(text).digest("base64url")},${text.length}\n`).join("");
  execFileSync("python3", ["-c", "import json, sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as z:\n  for path, text in json.loads(sys.argv[2]).items(): z.writestr(path, text)", join(simple, wheel), JSON.stringify({ ...files, "pyro_test-1.0.dist-info/RECORD": `${record}pyro_test-1.0.dist-info/RECORD,,\n` })]);
  writeFileSync(join(simple, "index.html"), `<!DOCTYPE html><a href="${wheel}#sha256=${createHash("sha256").update(readFileSync(join(simple, wheel))).digest("hex")}">${wheel}</a>\n`);
  expect(await guest("python3 -m pip install -q --cert /tmp/ca.pem --index-url https://www.example.com/simple/ --disable-pip-version-check --no-cache-dir --root-user-action ignore --target /tmp/python pyro-test; PYTHONPATH=/tmp/python python3 -c 'import pyro_test; print(pyro_test.word)'")).toBe("from a wheel\n");
  expect(requests()).toEqual(["http/1.1 GET www.example.com /simple/pyro-test/", `http/1.1 GET www.example.com /simple/pyro-test/${wheel}`]);
});

test("npm installs a package with one that it depends on, from a registry over HTTPS", async () => {
  const registry = join(world!.directory, "www/npm");
  mkdirSync(registry);
  const publish = (name: string, dependencies: Record<string, string>, source: string) => {
    const work = join(world!.directory, name);
    mkdirSync(join(work, "package"), { recursive: true });
    const manifest = { name, version: "1.0.0", main: "main.js", dependencies };
    writeFileSync(join(work, "package/package.json"), JSON.stringify(manifest));
    writeFileSync(join(work, "package/main.js"), source);
    execFileSync("tar", ["-czf", join(registry, `${name}-1.0.0.tgz`), "-C", work, "package"]);
    const integrity = `sha512-${createHash("sha512").update(readFileSync(join(registry, `${name}-1.0.0.tgz`))).digest("base64")}`;
    writeFileSync(join(registry, name), JSON.stringify({ name, "dist-tags": { latest: "1.0.0" }, versions: { "1.0.0": { ...manifest, dist: { tarball: `https://www.example.com/npm/${name}-1.0.0.tgz`, integrity } } } }));
  };
  publish("pyro-test", { "pyro-test-word": "^1.0.0" }, "console.log(require('pyro-test-word'))");
  publish("pyro-test-word", {}, "module.exports = 'from a registry'");
  expect(await guest(`mkdir /tmp/node; cd /tmp/node; export NODE_EXTRA_CA_CERTS=/tmp/ca.pem; node ${inGuest}/lib/node_modules/npm/bin/npm-cli.js install --silent --registry https://www.example.com/npm/ --no-audit --no-fund --no-update-notifier pyro-test; node -e 'require("pyro-test")'`)).toBe("from a registry\n");
  expect(requests().sort()).toEqual(["/npm/pyro-test", "/npm/pyro-test-1.0.0.tgz", "/npm/pyro-test-word", "/npm/pyro-test-word-1.0.0.tgz"].map((path) => `http/1.1 GET www.example.com ${path}`));
});
