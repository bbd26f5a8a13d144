/** Debian's kernel on hosts that have no apt: a mirror on loopback, made and signed here, asked by what is in PATH alone. */
import { createHash } from "node:crypto";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { findProgram, runChild } from "../../src/base/child.js";
import { tarOfPackage } from "../../src/environments/debian/deb-file.js";
import { readPackages } from "../../src/environments/debian/packages.js";
import { parseRelease } from "../../src/environments/debian/release.js";
import { compareVersions } from "../../src/environments/debian/version.js";
import { inspectEnvironment, listEnvironments, openEnvironment, pullEnvironment } from "../../src/environments/index.js";
import { makeFakeHost, makeVmlinux, seeded, useTemporary } from "./fixtures.js";
import { Layout } from "./image-maker.js";
import { archive } from "./tar-maker.js";

const guest = vi.hoisted(() => ({ path: "" }));
vi.mock("../../src/base/paths.js", async (original) => {
  const real = await original<typeof import("../../src/base/paths.js")>();
  return { ...real, nativeProgram: (name: "pyro-guest" | "pyro-keeper") => (name === "pyro-guest" ? guest.path : real.nativeProgram(name)) };
});

const temporary = useTemporary();
const before = { ...process.env };
/** By their paths, as PATH is another one in the tests. */
const tools = { gpg: "", gpgv: "", gpgconf: "", xz: "", lz4: "", "dpkg-deb": "", dpkg: "", sh: "", rm: "" };
let missing: string | undefined;
let server: Server;
let layout: Layout;
let deb: Buffer;
let count = 0;
/** What the mirror has, by path; a test changes it. */
let files: Map<string, Buffer>;
const asked: string[] = [];
let fault: ((path: string, outgoing: ServerResponse) => boolean) | undefined;

const sha256 = (data: string | Buffer) => createHash("sha256").update(data).digest("hex");
const release = "6.1.0-1-test";
const debPath = "pool/main/l/linux/linux-image-6.1.0-1-test_6.1.1-1_amd64.deb";

beforeAll(async () => {
  for (const program of Object.keys(tools) as (keyof typeof tools)[]) await findProgram(program).then((path) => (tools[program] = path), () => (missing = program));
  if (missing !== undefined) return;
  const made = join(temporary.path(), "host");
  await mkdir(made);
  await makeFakeHost(made);
  deb = await readFile(join(made, "kernel.deb"));
  for (const who of ["debian", "mallory"]) {
    await mkdir(join(temporary.path(), who), { mode: 0o700 });
    await gpg(who, ["--quick-gen-key", `${who} <${who}@localhost>`, "ed25519", "sign", "never"]);
  }
  const { stdout } = await gpg("debian", ["--export"]);
  await writeFile(join(temporary.path(), "keyring.gpg"), stdout);
  // Hosts that are not Debian: with gpgv and without.
  for (const [bin, programs] of [["with-gpgv", ["xz", "lz4", "sh", "rm", "gpgv"]], ["without", ["xz", "lz4", "sh", "rm"]]] as [string, (keyof typeof tools)[]][]) {
    await mkdir(join(temporary.path(), bin));
    for (const program of programs) await symlink(tools[program], join(temporary.path(), bin, program));
  }
  layout = new Layout(join(temporary.path(), "layout"));
  await layout.image([archive({ name: "x" })], { tag: "x" });
  await layout.finish();
  guest.path = join(temporary.path(), "guest");
  await writeFile(guest.path, "the guest program");
  server = createServer((incoming, outgoing) => {
    const path = incoming.url!;
    asked.push(path);
    if (fault?.(path, outgoing)) return;
    const data = files.get(path);
    outgoing.writeHead(data === undefined ? 404 : 200).end(data);
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
});

afterAll(async () => {
  process.env = before;
  server?.close();
  server?.closeAllConnections();
  for (const who of ["debian", "mallory"]) await runChild(tools.gpgconf, ["--homedir", join(temporary.path(), who), "--kill", "all"]).catch(() => {});
});

beforeEach(async ({ skip }) => {
  skip(missing !== undefined, `${missing} is not installed`);
  const mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  process.env = { ...before, PATH: join(temporary.path(), "with-gpgv"), XDG_CACHE_HOME: join(temporary.path(), `cache${++count}`), PYRO_DEBIAN_MIRROR: `${mirror}/debian`, PYRO_DEBIAN_SECURITY_MIRROR: `${mirror}/security/`, PYRO_DEBIAN_KEYRING: join(temporary.path(), "keyring.gpg") };
  for (const name of ["PYRO_KERNEL_DIR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]) delete process.env[name];
  files = new Map();
  fault = undefined;
  asked.length = 0;
  await suite("/debian", "bookworm", packages([["linux-image-cloud-amd64", "6.1.0-9", "linux-image-none (= 6.1.0-9)"], ["bash", "5", ""]]));
  await suite("/debian", "bookworm-updates", "");
  await suite("/security", "bookworm-security", packages([["linux-image-cloud-amd64", "6.1.1-1", `linux-image-${release} (= 6.1.1-1)`], [`linux-image-${release}`, "6.1.1-1", "kmod, linux-base (>= 4.3~)"]]));
  files.set(`/security/${debPath}`, deb);
});

async function gpg(who: string, args: string[], input?: string | Buffer) {
  const done = await runChild(tools.gpg, ["--homedir", join(temporary.path(), who), "--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "", ...args], { ...(input !== undefined && { input }), maxOutputBytes: 8 << 20, timeoutMs: 60_000 });
  if (done.code !== 0) throw new Error(done.stderr);
  return done;
}

function packages(all: [name: string, version: string, depends: string][]): string {
  return all.map(([name, version, depends]) => `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\n${depends === "" ? "" : `Depends: ${depends}\n`}Description: x\n y\nFilename: ${debPath}\nSize: ${deb.length}\nSHA256: ${sha256(deb)}\n\n`).join("");
}

interface SuiteOptions {
  codename?: string;
  fields?: string;
  who?: string;
  byHash?: boolean;
  /** What is done to the list behind the signature's back. */
  list?: (xz: Buffer) => Buffer;
}

async function suite(mirror: string, name: string, list: string, { codename = name, fields = "", who = "debian", byHash = true, list: change = (xz) => xz }: SuiteOptions = {}): Promise<void> {
  const { stdout: xz } = await runChild(tools.xz, ["-c"], { input: list, maxOutputBytes: 8 << 20 });
  const text = `Origin: Debian\nCodename: ${codename}\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n${fields}${byHash ? "Acquire-By-Hash: yes\n" : ""}MD5Sum:\n ${"0".repeat(32)} 1 main/binary-amd64/Packages.xz\nSHA256:\n ${sha256(xz)} ${xz.length} main/binary-amd64/Packages.xz\n`;
  files.set(`${mirror}/dists/${name}/InRelease`, (await gpg(who, ["--clearsign"], text)).stdout);
  files.set(`${mirror}/dists/${name}/main/binary-amd64/${byHash ? `by-hash/SHA256/${sha256(xz)}` : "Packages.xz"}`, change(xz));
}

const pull = () => pullEnvironment(`${layout.path}:x`);
async function refused(message: string | RegExp, code = "REGISTRY"): Promise<void> {
  await expect(pull()).rejects.toMatchObject({ code, message: typeof message === "string" ? expect.stringContaining(message) as string : expect.stringMatching(message) as string });
  expect((await listEnvironments()).filter((each) => each.installed)).toEqual([]);
}

for (const bin of ["with-gpgv", "without"]) {
  describe(`a host ${bin === "without" ? "without gpgv" : "with gpgv"}`, () => {
    beforeEach(() => {
      process.env["PATH"] = join(temporary.path(), bin);
    });

    test("gets the newest of all suites, each of it checked", async () => {
      await pull();
      expect((await inspectEnvironment(`${layout.path}:x`)).kernel).toMatchObject({ version: release, source: `debian:linux-image-${release}=6.1.1-1` });
      expect(await readFile((await openEnvironment(`${layout.path}:x`))!.kernel)).toEqual(makeVmlinux());
      expect(asked.filter((path) => path.endsWith("InRelease"))).toEqual(["/debian/dists/bookworm/InRelease", "/debian/dists/bookworm-updates/InRelease", "/security/dists/bookworm-security/InRelease"]);
      expect(asked.at(-1)).toBe(`/security/${debPath}`);
    });

    test("takes nothing that another key has signed", async () => {
      await suite("/debian", "bookworm", packages([]), { who: "mallory" });
      await refused("/debian/dists/bookworm/InRelease does not carry Debian's signature: ");
      expect(asked).toEqual(["/debian/dists/bookworm/InRelease"]);
    });

    test("takes nothing that was changed behind its signature", async () => {
      const path = "/debian/dists/bookworm/InRelease";
      files.set(path, Buffer.from(files.get(path)!.toString().replace("Origin: Debian", "Origin: Debiam")));
      await refused("does not carry Debian's signature");
    });

    test.each([
      ["nothing signed", (_text: string) => "Origin: Debian\nCodename: bookworm\n"],
      ["text before the signed one", (text: string) => `Codename: bookworm\n\n${text}`],
      ["text behind the signed one", (text: string) => `${text}\nCodename: bookworm\n`],
      ["two signed texts", (text: string) => `${text}${text}`],
      ["no signature", (text: string) => text.replace(/-----BEGIN PGP SIGNATURE-----[^]*$/, "-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n")],
    ])("takes no %s", async (_what, change) => {
      const path = "/debian/dists/bookworm/InRelease";
      files.set(path, Buffer.from(change(files.get(path)!.toString())));
      await refused("does not carry Debian's signature");
    });
  });
}

describe("what is signed and does not fit is refused", () => {
  test("another suite's", () => suite("/debian", "bookworm", "", { codename: "bullseye" }).then(() => refused("is of bullseye, and bookworm was asked for")));
  test("an old state", () => suite("/security", "bookworm-security", "", { fields: "Valid-Until: Sat, 18 Jul 2020 10:16:37 UTC\n" }).then(() => refused("is out of date since Sat, 18 Jul 2020")));
  test("another list", () => suite("/debian", "bookworm", packages([]), { list: (xz) => Buffer.concat([xz.subarray(0, -1), Buffer.from("x")]) }).then(() => refused("is not what Debian's archive says it is")));
  test("a longer list", () => suite("/debian", "bookworm", packages([]), { list: (xz) => Buffer.concat([xz, xz]) }).then(() => refused("more than the")));
  test("another package", async () => {
    files.set(`/security/${debPath}`, Buffer.concat([deb.subarray(0, -1), Buffer.from("x")]));
    await refused("is not what Debian's archive says it is");
  });
  test("a package elsewhere", () => suite("/debian", "bookworm", packages([["linux-image-x", "1", ""]]).replace(debPath, "pool/../../x.deb")).then(() => refused("Filename leads elsewhere", "ENVIRONMENT_INVALID")));
  test("a package of any size", () => suite("/debian", "bookworm", packages([["linux-image-x", "1", ""]]).replace(`Size: ${deb.length}`, "Size: 99999999999")).then(() => refused("maxPackageBytes", "ENVIRONMENT_INVALID")));
});

test("a mirror without lists by digest, and one that is busy for a moment", async () => {
  await suite("/debian", "bookworm", packages([]), { byHash: false });
  let busy = 1;
  fault = (path, outgoing) => path.endsWith("Packages.xz") && busy-- > 0 && (outgoing.writeHead(503).end(), true);
  await pull();
  expect(asked.filter((path) => path === "/debian/dists/bookworm/main/binary-amd64/Packages.xz")).toHaveLength(2);
});

test("an answer without an end is not waited for", async () => {
  fault = (path, outgoing) => {
    if (!path.endsWith("InRelease")) return false;
    const more = () => void (outgoing.destroyed || outgoing.write(Buffer.alloc(1 << 20, "x"), () => setImmediate(more)));
    more();
    return true;
  };
  await refused(/answered with more than 4194304 bytes/);
});

test("a mirror that is not there, and an address that is none", async () => {
  files.clear();
  await refused("InRelease can't be had: the mirror answered 404.");
  process.env["PYRO_DEBIAN_MIRROR"] = "file:///srv/debian";
  await refused("is no HTTP address", "INVALID_ARGUMENT");
  process.env["PYRO_DEBIAN_MIRROR"] = `http://user:s%65cret@127.0.0.1:${(server.address() as AddressInfo).port}/debian`;
  await expect(pull()).rejects.toMatchObject({ message: expect.not.stringContaining("cret") as string });
});

test("versions are compared as dpkg does", async () => {
  const random = seeded(11);
  const letters = "019.+~-:azAZ";
  const versions = ["1", "1.0", "1~", "1~~", "1~~a", "1a", "1+", "1.", "1-1", "1-1~", "0:1", "1:0", "2-0", "1.10", "1.9", "1.09", "6.1.192-2", "6.1.99-1", "6.1.192-2~bpo1"];
  while (versions.length < 60) versions.push(`${random(9)}${Array.from({ length: 1 + random(6) }, () => letters[random(letters.length)]).join("")}1`.replace(/:(?=.*:)|^[^0-9]+|:(?=[^:]*$)(?<=[^0-9].*:)/g, ""));
  const pairs = versions.flatMap((a, index) => versions.slice(index, index + 4).map((b) => [a, b] as const)).filter(([a, b]) => !/:/.test(`${a}${b}`.replaceAll(/^[0-9]:/g, "")));
  for (const [a, b] of pairs.slice(0, 120)) {
    const operator = compareVersions(a, b) < 0 ? "lt" : compareVersions(a, b) > 0 ? "gt" : "eq";
    expect(Math.sign(compareVersions(b, a)), `${a} ${b}`).toBe(-Math.sign(compareVersions(a, b)) + 0);
    expect([a, operator, b, (await runChild(tools.dpkg, ["--compare-versions", a, operator, b])).code]).toEqual([a, operator, b, 0]);
  }
});

test("parsers of a mirror's files take anything", async () => {
  const random = seeded(5);
  const valid = ["Codename: x\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n ", `${"a".repeat(64)} 12 main/x\n`, packages([["linux-image-x", "1", "y"]]), "\n\n", "Package: linux-image-", "Size: ", "\0\xff"];
  for (let round = 0; round < 2000; round++) {
    const text = Array.from({ length: 1 + random(6) }, () => valid[random(valid.length)]!).map((each) => (random(3) === 0 ? each.slice(random(each.length)) : each)).join("");
    const outcomes = await Promise.allSettled([(async () => parseRelease(text, "x", "x"))(), readPackages((async function* () { yield Buffer.from(text, "latin1"); })(), "linux-image-", "x")]);
    for (const outcome of outcomes) if (outcome.status === "rejected") expect((outcome.reason as { code: string }).code).toMatch(/^(REGISTRY|ENVIRONMENT_INVALID)$/);
  }
});

test("packages that are none", async () => {
  const random = seeded(17);
  const file = join(temporary.path(), "damaged.deb");
  const outcome = (data: Buffer) => writeFile(file, data).then(() => tarOfPackage(file, undefined)).then(({ args }) => args.length, (error: { code: string }) => error.code);
  expect(await outcome(deb)).toBe(4);
  for (const [from, to, code] of [["!<arch>", "!<arcx>", "ENVIRONMENT_INVALID"], ["data.tar.xz ", "data.tar.zst", "UNSUPPORTED"], ["data.tar.xz", "date.tar.xz", "ENVIRONMENT_INVALID"]] as const) expect(await outcome(Buffer.from(deb.toString("latin1").replace(from, to), "latin1")), from).toBe(code);
  expect(await outcome(deb.subarray(0, -1))).toBe("ENVIRONMENT_INVALID");
  const head = deb.subarray(0, 400);
  for (let round = 0; round < 300; round++) {
    const data = Buffer.from(random(3) === 0 ? head : deb.subarray(0, 100 + random(deb.length)));
    for (let count = random(4); count > 0; count--) data[random(Math.min(data.length, 400))] = random(2) === 0 ? 0x30 + random(10) : random(256);
    expect([3, 4, "ENVIRONMENT_INVALID", "UNSUPPORTED"]).toContain(await outcome(data));
  }
});

test("the keys that come along are Debian's", async () => {
  const { stdout } = await gpg("debian", ["--show-keys", "--with-colons", new URL("../../keys/debian-12.gpg", import.meta.url).pathname]);
  const primary = [...stdout.toString().matchAll(/^pub:.*\n(?:rvk:.*\n)*fpr:+([0-9A-F]{40}):/gm)].map((match) => match[1]);
  expect(primary).toEqual(["B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8", "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0", "4D64FEC119C2029067D6E791F8D2585B8783D481"]);
});

test("without gpgv and the library: what to install", async () => {
  vi.doMock("openpgp", () => {
    throw new Error("not there");
  });
  process.env["PATH"] = join(temporary.path(), "without");
  await expect(pull()).rejects.toMatchObject({ code: "HOST_MISSING", hint: expect.stringContaining("gpgv") as string });
  vi.doUnmock("openpgp");
  await rm(join(temporary.path(), "without"), { recursive: true });
});
