import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connectChannel, type Channel, type TreeEntry } from "../../src/channel/index.js";

// The guest's real C code, under sanitizers, over a socket pair. Nothing here changes the host: no identity, clock or power-off.
const program = new URL("../../build/guest/pyro-guest-hosted", import.meta.url).pathname;
execFileSync("make", ["-s", "-C", new URL("../../guest", import.meta.url).pathname, "hosted"]);

let child: ChildProcess;
let port: Duplex;
let channel: Channel;
let directory: string;
let complaints = "";

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pyro-channel-"));
  complaints = "";
  child = spawn(program, ["3"], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  child.stderr!.on("data", (part: Buffer) => (complaints += part.toString().slice(0, 4096)));
  port = child.stdio[3] as Duplex;
  channel = await connectChannel(port, { deadlineMs: 120_000 });
});

afterEach(async () => {
  channel.close();
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }
  rmSync(directory, { recursive: true });
  expect(complaints).not.toMatch(/Sanitizer|runtime error/);
});

test(`commands: output, input, every byte, exit code, signal, not found`, async () => {
  const cat = channel.exec({ argv: ["sh", "-c", "cat; echo err >&2; exit 7"], stdin: true });
  const out = cat.stdout.toArray();
  const err = cat.stderr.toArray();
  cat.stdin!.end(Buffer.alloc(3_000_000, "x"));
  expect(Buffer.concat(await out).length).toBe(3_000_000);
  expect(Buffer.concat(await err).toString()).toBe("err\n");
  expect(await cat.result).toMatchObject({ exitCode: 7, stdoutBytes: 3_000_000, stderrBytes: 4 });
  expect(await channel.exec({ argv: ["sh", "-c", "kill -9 $$"] }).result).toMatchObject({ exitCode: 137, signal: 9 });
  expect(await channel.exec({ argv: ["no-such-program"] }).result).toMatchObject({ failure: { errno: 2, stage: "exec" } });
});

test(`files: write, read, stat, list`, async () => {
  const path = join(directory, "a/b");
  await channel.writeFile(path, Buffer.alloc(1_000_000, "y"), { mode: 0o640, makeParents: true });
  expect(readFileSync(path).equals(Buffer.alloc(1_000_000, "y"))).toBe(true);
  expect(Buffer.concat(await channel.readFile(path, { offset: 999_990 }).toArray()).toString()).toBe("yyyyyyyyyy");
  expect(await channel.stat(path)).toMatchObject({ type: "file", mode: 0o640, sizeBytes: 1_000_000n });
  expect((await channel.list(join(directory, "a"))).map(({ name }) => name.toString())).toEqual(["b"]);
  await expect(channel.stat("/no/such")).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(await channel.ping()).toBeGreaterThan(0);
  const stats = await channel.stats();
  expect(stats.memoryTotalBytes).toBeGreaterThan(stats.memoryAvailableBytes);
  expect(stats.diskTotalBytes).toBeGreaterThan(stats.diskFreeBytes);
});

test(`directories, names, owners, times and links`, async () => {
  const at = (name: string) => join(directory, name);
  await channel.makeDirectory(at("a"), { mode: 0o2750 });
  expect(lstatSync(at("a")).mode & 0o7777).toBe(0o2750);
  await expect(channel.makeDirectory(at("a"))).rejects.toMatchObject({ code: "EXISTS" });
  await expect(channel.makeDirectory(at("x/y"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  await channel.makeDirectory(at("a/b/c"), { makeParents: true });
  await channel.makeDirectory(at("a/b/c"), { makeParents: true });
  await channel.writeFile(at("file"), Buffer.from("one"));
  await expect(channel.makeDirectory(at("file"), { makeParents: true })).rejects.toMatchObject({ code: "EXISTS" });
  await channel.makeLink(at("hard"), at("file"), { hard: true });
  await channel.makeLink(at("soft"), "no/such");
  expect([lstatSync(at("file")).nlink, readlinkSync(at("soft"))]).toEqual([2, "no/such"]);
  await channel.writeFile(at("other"), Buffer.from("two"));
  await expect(channel.rename(at("file"), at("other"), { exclusive: true })).rejects.toMatchObject({ code: "EXISTS" });
  await channel.rename(at("file"), at("other"));
  expect(readFileSync(at("other"), "utf8")).toBe("one");
  await channel.change(at("other"), { mode: 0o4711, mtimeNs: -1_500_000_001n });
  expect(await channel.stat(at("other"))).toMatchObject({ mode: 0o4711, mtimeNs: -1_500_000_001n });
  await channel.makeLink(at("to-other"), "other");
  await expect(channel.change(at("to-other"), { mode: 0o600 })).rejects.toMatchObject({ code: "INVALID_STATE" });
  await channel.change(at("to-other"), { mtimeNs: 5n });
  await channel.change(at("to-other"), { mode: 0o600, follow: true });
  expect([(await channel.stat(at("to-other"))).mtimeNs, (await channel.stat(at("other"))).mode]).toEqual([5n, 0o600]);
  await expect(channel.change(at("other"), {})).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(channel.change(at("other"), { owner: { uid: 1, gid: 0xffff_ffff } })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

test(`removal: what is empty, what is not, links, 3,000 levels, 3,000 files`, async () => {
  const at = (name: string) => join(directory, name);
  mkdirSync(at("outside/kept"), { recursive: true });
  mkdirSync(at("tree/wide"), { recursive: true });
  symlinkSync("../outside", at("tree/link"));
  for (let count = 0; count < 3000; count++) writeFileSync(at(`tree/wide/${count}`), "");
  const deep = channel.exec({ argv: ["python3", "-c", "import os\nfor i in range(3000): os.mkdir('d'); os.chdir('d')"], cwd: at("tree") });
  expect(await deep.result).toMatchObject({ exitCode: 0 });
  await expect(channel.remove(at("tree"))).rejects.toMatchObject({ code: "INVALID_STATE", message: expect.stringContaining("tree: Directory not empty") as string });
  await channel.remove(at("tree"), { recursive: true });
  expect(readdirSync(directory)).toEqual(["outside"]);
  symlinkSync("outside", at("link"));
  await channel.remove(at("link/"), { recursive: true });
  expect(readdirSync(at("outside"))).toEqual(["kept"]);
  await channel.remove(at("outside/kept"));
  for (const path of [`${directory}/outside/.`, `${directory}/outside/..`]) await expect(channel.remove(path, { recursive: true })).rejects.toMatchObject({ code: "INVALID_STATE" });
  await expect(channel.remove(at("nothing"), { recursive: true })).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(readdirSync(directory)).toEqual(["outside"]);
});

const listing = async (path: string): Promise<string> => {
  const find = channel.exec({ argv: ["sh", "-c", "find . -type d -printf '%P %m %U:%G %T@\\n' -o -printf '%P %y %m %U:%G %n %s %T@ %l\\n' | sort; find . -type f -exec sha256sum {} + | sort"], cwd: path });
  return Buffer.concat(await find.stdout.toArray()).toString();
};

test(`a tree goes out and in again: links, fifos, holes, modes, times, owners, names`, async () => {
  const at = (name: string) => join(directory, name);
  const script = [
    "import os",
    "os.mkdir('t'); os.chdir('t'); os.makedirs('d/empty'); os.mkdir(b'\\xff\\n')",
    "open('d/file', 'wb').write(os.urandom(300000)); os.link('d/file', 'again'); os.link('d/file', 'd/empty-not')",
    "os.symlink('/no/such', 'd/link'); os.mkfifo('d/fifo', 0o640); os.chmod('d/file', 0o4755)",
    "f = open('sparse', 'wb'); f.truncate(1 << 40); f.seek(1 << 26); f.write(b'x' * 8192); f.close()",
    "[open('d/%d' % i, 'w').write(str(i)) for i in range(2000)]",
    "os.utime('d/link', ns=(1, -1500000001), follow_symlinks=False); os.utime('d/file', ns=(1, 1234567890987654321)); os.chmod('d/empty', 0o1500); os.utime('d', ns=(5, 5))",
    "if os.getuid() == 0: os.lchown('d/link', 12, 34); os.chown('d/fifo', 56, 78); os.chown('d/empty', 9, 9)",
  ].join("\n");
  expect(await channel.exec({ argv: ["python3", "-c", script], cwd: directory }).result).toMatchObject({ exitCode: 0 });
  const tree = channel.packTree(at("t"));
  // What a 1 TiB hole is to whoever does not take it for one is not this test's.
  const rewritten = async function* (): AsyncGenerator<TreeEntry> {
    for await (const entry of tree) yield entry.path.toString() === "sparse" ? { ...entry, content: first128MiB(entry.content!) } : entry;
  };
  expect(await channel.unpackTree(at("x/y/copy"), rewritten(), { owners: true, makeParents: true })).toEqual({ entries: 2010 });
  expect(await tree.totals).toEqual({ entries: 2010, contentBytes: (1n << 40n) + 300_000n + 6890n, skipped: 0 });
  await channel.exec({ argv: ["truncate", "-s", String(2 ** 27), at("t/sparse")] }).result;
  await channel.change(at("t/sparse"), { mtimeNs: (await channel.stat(at("x/y/copy/sparse"))).mtimeNs });
  expect(await listing(at("x/y/copy"))).toBe(await listing(at("t")));
  expect(lstatSync(at("x/y/copy/sparse")).blocks).toBeLessThan(1000);
  expect(readdirSync(at("x/y"))).toEqual(["copy"]);
  for (const name of ["again", "d/link", "d/fifo"]) {
    await channel.unpackTree(at("one"), channel.packTree(at(`t/${name}`)), { owners: true });
    expect(await channel.stat(at("one"))).toMatchObject({ ...(await channel.stat(at(`t/${name}`))), links: 1 });
    await channel.remove(at("one"));
  }
  await expect(channel.packTree(at("nothing"))[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "NOT_FOUND" });
});

async function* first128MiB(content: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let left = 2 ** 27;
  for await (const chunk of content) {
    if (left === 0) return;
    yield chunk.subarray(0, Math.min(left, chunk.length));
    left -= Math.min(left, chunk.length);
  }
}

test(`unpacking: what is there, what breaks, what leads elsewhere`, async () => {
  const at = (name: string) => join(directory, name);
  const entry = (path: string, type: TreeEntry["type"], more: Partial<TreeEntry> = {}): TreeEntry => ({ path: Buffer.from(path), type, mode: 0o700, uid: 0, gid: 0, mtimeNs: 0n, sizeBytes: 0n, ...more });
  const file = (path: string, text: string): TreeEntry => entry(path, "file", { content: (async function* () { yield Buffer.from(text); })() });
  const refused = (path: string, entries: readonly TreeEntry[], code: string, options = {}) => expect(channel.unpackTree(at(path), entries, options)).rejects.toMatchObject({ code });
  mkdirSync(at("outside"));
  mkdirSync(at("there/d"), { recursive: true });
  writeFileSync(at("there/d/kept"), "kept");
  writeFileSync(at("there/d/old"), "old");
  symlinkSync("../outside", at("there/link"));
  const before = lstatSync(at("there"));
  await refused("there", [entry("", "directory")], "EXISTS");
  await refused("no/such", [entry("", "directory")], "NOT_FOUND");
  // Into a directory that is there: files replaced, a link in the way replaced by a file, never gone through.
  await channel.unpackTree(at("there"), [entry("", "directory"), entry("d", "directory"), file("d/old", "new"), file("d/more", "more"), entry("d/hard", "file", { hardLinkTo: Buffer.from("d/old") }), file("link", "file now")], { merge: true });
  expect(["d/kept", "d/old", "d/more", "d/hard", "link"].map((name) => readFileSync(at(`there/${name}`), "utf8"))).toEqual(["kept", "new", "more", "new", "file now"]);
  expect([lstatSync(at("there")).mode, lstatSync(at("there")).mtimeMs === before.mtimeMs]).toEqual([before.mode, false]);
  symlinkSync("../outside", at("there/e"));
  await refused("there", [entry("", "directory"), entry("e", "directory"), file("e/x", "x")], "INVALID_STATE", { merge: true });
  await refused("there", [entry("", "directory"), entry("h", "file", { hardLinkTo: Buffer.from("e/x") })], "INVALID_STATE", { merge: true });
  await refused("there", [file("", "x")], "INVALID_STATE", { merge: true });
  await refused("there/d/old", [entry("", "directory")], "INVALID_STATE", { merge: true });
  await channel.unpackTree(at("there/d/old"), [file("", "newest")], { merge: true });
  expect(readFileSync(at("there/d/old"), "utf8")).toBe("newest");
  await channel.unpackTree(at("made"), [entry("", "directory"), file("a", "a")], { merge: true });
  expect(readdirSync(at("made"))).toEqual(["a"]);
  // Broken off: by what gives the entries, by the guest, by the caller.
  const broken = async function* () {
    yield entry("", "directory");
    yield file("a", "a");
    throw new Error("the disk is gone");
  };
  await expect(channel.unpackTree(at("new"), broken())).rejects.toThrow("the disk is gone");
  await refused("new", [entry("", "directory"), entry("d", "directory"), file("d/a", "a"), file("d/a", "a")], "EXISTS");
  const controller = new AbortController();
  const endless = async function* () {
    yield entry("", "directory");
    for (let count = 0; ; count++) {
      if (count === 500) controller.abort();
      yield file(String(count), "x".repeat(20_000));
    }
  };
  await expect(channel.unpackTree(at("new"), endless(), { signal: controller.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  await expect.poll(() => readdirSync(directory).sort()).toEqual(["made", "outside", "there"]);
  expect(readdirSync(at("outside"))).toEqual([]);
  expect([...readdirSync(at("there")), ...readdirSync(at("there/d"))].filter((name) => name.includes("pyro"))).toEqual([]);
});

test(`a file in many pieces leaves no listeners behind`, async () => {
  const warnings: string[] = [];
  const onWarning = (warning: Error) => warnings.push(warning.name);
  process.on("warning", onWarning);
  const path = join(directory, "pieces");
  await channel.writeFile(path, (async function* () {
    for (let count = 0; count < 100; count++) yield Buffer.alloc(65_536);
  })());
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", onWarning);
  expect(readFileSync(path).length).toBe(6_553_600);
  expect(warnings).toEqual([]);
});
