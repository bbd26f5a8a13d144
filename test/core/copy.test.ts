// The host's side of tree copies: what is read of the host, and what a guest's entries may do to it.
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, linkSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, truncateSync, utimesSync, watch, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { TreeEntry } from "../../src/channel/index.js";
import { readHostTree } from "../../src/core/copy/host-tree.js";
import { writeHostTree, type HostWriteOptions } from "../../src/core/copy/host-write.js";
import { CopyCounter } from "../../src/core/copy/progress.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-copy-test-"));
  process.env["XDG_CACHE_HOME"] = mkdtempSync(join(tmpdir(), "pyro-copy-cache-"));
});
afterEach(() => {
  for (const each of [directory, process.env["XDG_CACHE_HOME"]!]) rmSync(each, { recursive: true, force: true });
});
const at = (...names: string[]) => join(directory, ...names);

const common = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 1_000_000_000_000_000_000n, sizeBytes: 0n };
const folder = (path: string, mode = 0o755): TreeEntry => ({ ...common, path: Buffer.from(path), type: "directory", mode });
const file = (path: string, content: string, mode = 0o644): TreeEntry => ({ ...common, path: Buffer.from(path), type: "file", mode, content: (async function* () { yield Buffer.from(content); })() });
const link = (path: string, target: string): TreeEntry => ({ ...common, path: Buffer.from(path), type: "link", mode: 0o777, target: Buffer.from(target) });

async function* each(entries: readonly TreeEntry[], failure?: Error): AsyncIterable<TreeEntry> {
  yield* entries;
  if (failure !== undefined) throw failure;
}
const write = (entries: readonly TreeEntry[], options: HostWriteOptions = {}, failure?: Error) => writeHostTree(at("to"), each(entries, failure), new CopyCounter(), options);

async function read(root: string): Promise<{ seen: Record<string, unknown>[]; counter: CopyCounter }> {
  const counter = new CopyCounter();
  const seen: Record<string, unknown>[] = [];
  for await (const entry of readHostTree(root, counter)) {
    const parts: Buffer[] = [];
    for await (const part of entry.content ?? []) parts.push(part);
    seen.push({ path: entry.path.toString(), type: entry.type, mode: entry.mode.toString(8), ...(entry.target && { target: entry.target.toString() }), ...(entry.hardLinkTo && { hardLinkTo: entry.hardLinkTo.toString() }), ...(entry.content && { content: Buffer.concat(parts).toString() }) });
  }
  return { seen, counter };
}

test("a tree of the host: directories, files, links, hard links, fifos; sockets are counted", async () => {
  mkdirSync(at("from", "a"), { recursive: true });
  writeFileSync(at("from", "a", "f"), "content", { mode: 0o640 });
  linkSync(at("from", "a", "f"), at("from", "b"));
  symlinkSync("/etc/passwd", at("from", "l"));
  execFileSync("mkfifo", [at("from", "p")]);
  const server = createServer().listen(at("from", "s"));
  await new Promise((resolve) => server.once("listening", resolve));
  chmodSync(at("from"), 0o755);
  chmodSync(at("from", "a"), 0o700);
  const { seen, counter } = await read(at("from"));
  expect(seen).toEqual([
    { path: "", type: "directory", mode: "755" },
    { path: "a", type: "directory", mode: "700" },
    { path: "a/f", type: "file", mode: "640", content: "content" },
    { path: "b", type: "file", mode: "640", hardLinkTo: "a/f" },
    { path: "l", type: "link", mode: "777", target: "/etc/passwd" },
    { path: "p", type: "fifo", mode: "644" },
  ]);
  expect([counter.entries, counter.contentBytes, counter.skipped]).toEqual([6, 7, 1]);
  await new Promise((resolve) => server.close(resolve));
});

test("names that are not UTF-8", async () => {
  mkdirSync(at("from"));
  writeFileSync(Buffer.concat([Buffer.from(`${at("from")}/`), Buffer.from([0xff, 0x41])]), "x");
  const paths: Buffer[] = [];
  for await (const entry of readHostTree(at("from"), new CopyCounter())) paths.push(entry.path);
  expect(paths).toEqual([Buffer.alloc(0), Buffer.from([0xff, 0x41])]);
  await write([folder(""), { ...file("", "y"), path: Buffer.from([0xfe]) }]);
  expect(readdirSync(at("to"), { encoding: "buffer" })).toEqual([Buffer.from([0xfe])]);
});

test("what is not there, and what can't be read", async () => {
  await expect(read(at("nothing"))).rejects.toMatchObject({ code: "NOT_FOUND", message: `${at("nothing")} is not there.` });
});

test("a file that shrinks, and one that is replaced by a link while it is copied", async () => {
  mkdirSync(at("from"));
  writeFileSync(at("from", "f"), "x".repeat(100));
  const cutOff = async () => {
    for await (const entry of readHostTree(at("from"), new CopyCounter())) {
      if (entry.content === undefined) continue;
      truncateSync(at("from", "f"), 10);
      for await (const part of entry.content) void part;
    }
  };
  await expect(cutOff()).rejects.toMatchObject({ code: "INVALID_STATE", message: `${at("from", "f")} was cut off while it was copied.` });
  const replaced = async () => {
    for await (const entry of readHostTree(at("from"), new CopyCounter())) {
      if (entry.content === undefined) continue;
      rmSync(at("from", "f"));
      symlinkSync("/etc/passwd", at("from", "f"));
      for await (const part of entry.content) void part;
    }
  };
  await expect(replaced()).rejects.toMatchObject({ code: "INVALID_STATE" });
});

test("entries become files: modes, times, links, hard links, sparse files", async () => {
  const { isHole } = await import("../../src/channel/index.js");
  const { ZEROS } = await import("../../src/channel/tree.js");
  expect(isHole(ZEROS.subarray(0, 100))).toBe(true);
  const sparse: TreeEntry = { ...common, path: Buffer.from("d/sparse"), type: "file", content: (async function* () { yield Buffer.from("a"); for (let n = 0; n < 160; n++) yield ZEROS; })() };
  await write([folder("", 0o750), folder("d", 0o500), file("d/f", "hello", 0o4755), { ...common, path: Buffer.from("d/g"), type: "file", hardLinkTo: Buffer.from("d/f") }, link("d/l", "../../../outside"), sparse]);
  expect((statSync(at("to")).mode & 0o7777).toString(8)).toBe("750");
  expect((statSync(at("to", "d")).mode & 0o7777).toString(8)).toBe("500");
  expect((statSync(at("to", "d", "f")).mode & 0o7777).toString(8)).toBe("755"); // set-user-id is dropped
  expect(readFileSync(at("to", "d", "g"), "utf8")).toBe("hello");
  expect(statSync(at("to", "d", "f")).ino).toBe(statSync(at("to", "d", "g")).ino);
  expect(readlinkSync(at("to", "d", "l"))).toBe("../../../outside");
  expect([statSync(at("to", "d", "sparse")).size, statSync(at("to", "d", "sparse")).blocks < 100]).toEqual([1 + 160 * 65_536, true]);
  for (const name of [at("to"), at("to", "d"), at("to", "d", "f"), at("to", "d", "l")]) expect(lstatSync(name).mtimeMs).toBe(1_000_000_000_000);
});

test("nothing is followed: something below a link, a name twice, a hard link through a link", async () => {
  mkdirSync(at("victim"));
  writeFileSync(at("victim", "f"), "mine");
  await expect(write([folder(""), link("l", at("victim")), file("l/f", "theirs")])).rejects.toMatchObject({ code: "PROTOCOL" });
  await expect(write([folder(""), link("l", at("victim", "f")), file("l", "theirs")])).rejects.toMatchObject({ code: "PROTOCOL" });
  await expect(write([folder(""), link("l", at("victim")), { ...common, path: Buffer.from("h"), type: "file", hardLinkTo: Buffer.from("l/f") }])).rejects.toMatchObject({ code: "PROTOCOL" });
  expect(readFileSync(at("victim", "f"), "utf8")).toBe("mine");
  expect(readdirSync(directory)).toEqual(["victim"]);
});

test("a copy that breaks leaves nothing", async () => {
  await expect(write([folder(""), folder("d", 0o000), file("d/f", "x")], {}, new Error("broken"))).rejects.toThrow("broken");
  expect(readdirSync(directory)).toEqual([]);
  const stop = new AbortController();
  stop.abort();
  await expect(write([folder("")], { signal: stop.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  expect(readdirSync(directory)).toEqual([]);
});

test("what is there is replaced as a whole, and only if that was asked for", async () => {
  mkdirSync(at("to"));
  writeFileSync(at("to", "old"), "old");
  await expect(write([folder("")])).rejects.toMatchObject({ code: "EXISTS", hint: "Give another name, or --force to replace it." });
  await expect(write([folder(""), file("new", "new")], { replace: true }, new Error("broken"))).rejects.toThrow("broken");
  expect(readdirSync(at("to"))).toEqual(["old"]);
  await write([folder(""), file("new", "new")], { replace: true });
  expect(readdirSync(at("to"))).toEqual(["new"]);
  await write([file("", "one file")], { replace: true });
  expect(readFileSync(at("to"), "utf8")).toBe("one file");
  expect(readdirSync(directory)).toEqual(["to"]);
});

test("an ordinary user copies a directory that its owner may not write to", async () => {
  const { seteuid, geteuid } = process;
  const isRoot = geteuid!() === 0;
  if (isRoot) for (const each of [directory, process.env["XDG_CACHE_HOME"]!]) chownSync(each, 1000, 1000);
  if (isRoot) seteuid!(1000);
  try {
    for (const mode of [0o555, 0o000]) {
      await write([folder("", mode), file("f", String(mode))], { replace: true }); // the second time over the first one
      expect(statSync(at("to")).mode & 0o777).toBe(mode);
      expect(statSync(at("to")).mtimeMs).toBe(1_000_000_000_000);
      expect(readdirSync(directory)).toEqual(["to"]);
    }
    chmodSync(at("to"), 0o700);
    expect(readFileSync(at("to", "f"), "utf8")).toBe("0");
    rmSync(at("to"), { recursive: true });
    await write([folder("", 0o555)]);
    mkdirSync(at("there"));
    writeFileSync(at("there", "mine"), "");
    await expect(writeHostTree(at("there"), (async function* () { yield folder("", 0o555); })(), new CopyCounter())).rejects.toMatchObject({ code: "EXISTS" });
  } finally {
    if (isRoot) seteuid!(0);
  }
});

test("what clears up after us is gone when we are done, and one that can't be had is no reason not to copy", async () => {
  const cache = process.env["XDG_CACHE_HOME"]!;
  await write([file("", "x")]);
  await expect(write([folder(""), file("f", "x")], {}, new Error("broken off"))).rejects.toMatchObject({ code: "EXISTS" });
  await expect(writeHostTree(at("no", "where"), each([folder("")]), new CopyCounter())).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(readdirSync(join(cache, "pyro-mcp/tmp"))).toEqual([]);
  rmSync(cache, { recursive: true });
  writeFileSync(cache, "no directory");
  await write([file("", "y")], { replace: true });
  expect([readFileSync(at("to"), "utf8"), readdirSync(directory)]).toEqual(["y", ["to"]]);
});

test("what clears up is told to end while we go on, as all is that belongs to a session that ends: nothing is removed", async () => {
  mkdirSync(at("to"));
  writeFileSync(at("to", "old"), "old");
  const names = Array.from({ length: 3000 }, (_, n) => `f${n}`).sort();
  const entries = async function* (): AsyncIterable<TreeEntry> {
    yield folder("");
    for (const name of names) yield file(name, "new");
    for (const pid of processesWith(join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp/tmp"))) ended(pid);
    await new Promise((resolve) => setTimeout(resolve, 10)); // else what it does would come too late to be in our way
  };
  await writeHostTree(at("to"), entries(), new CopyCounter(), { replace: true });
  expect(readdirSync(at("to")).sort()).toEqual(names);
  expect(readdirSync(directory)).toEqual(["to"]);
});

/** Told to end; the one may be gone with the other. */
function ended(pid: number): void {
  try {
    process.kill(pid, "SIGTERM");
  } catch (error) {
    expect(error).toMatchObject({ code: "ESRCH" });
  }
}

function processesWith(word: string): number[] {
  const found = readdirSync("/proc").filter((name) => {
    try {
      return /^[0-9]+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "latin1").includes(word);
    } catch {
      return false; // it is gone
    }
  });
  expect(found).toHaveLength(2); // the keeper, and the one that holds the lock
  return found.map(Number);
}

test("a destination whose directory is not there", async () => {
  await expect(writeHostTree(at("no", "where"), each([folder("")]), new CopyCounter())).rejects.toMatchObject({ code: "NOT_FOUND", message: `The directory ${at("no")} is not there.` });
});

test("a time that no file system has", async () => {
  await write([{ ...file("", "x"), mtimeNs: -(2n ** 62n) }]);
  expect(existsSync(at("to"))).toBe(true);
  utimesSync(at("to"), 1, 1);
});

test("two copies to one name at once: the first is kept, whatever it is", async () => {
  for (const [mine, theirs] of [["file", "file"], ["directory", "directory"], ["directory", "file"], ["file", "directory"]] as const) {
    const late = async function* (): AsyncIterable<TreeEntry> {
      if (mine === "file") writeFileSync(at("to"), "mine");
      else mkdirSync(at("to", "mine"), { recursive: true });
      yield* theirs === "file" ? [file("", "theirs")] : [folder(""), file("f", "theirs")];
    };
    await expect(writeHostTree(at("to"), late(), new CopyCounter())).rejects.toMatchObject({ code: "EXISTS", message: `${at("to")} is there already.` });
    expect(mine === "file" ? readFileSync(at("to"), "utf8") : readdirSync(at("to"))).toEqual(mine === "file" ? "mine" : ["mine"]);
    expect(readdirSync(directory)).toEqual(["to"]);
    rmSync(at("to"), { recursive: true });
  }
});

test("a file that is replaced is there at every moment", async () => {
  writeFileSync(at("to"), "old");
  const before = statSync(at("to")).ino;
  let renamed = 0;
  let last = () => {};
  const all = new Promise<void>((resolve) => (last = resolve));
  const seen = watch(directory, (event, name) => void (name === "last" ? last() : event === "rename" && name === "to" && renamed++));
  await write([file("", "new")], { replace: true });
  writeFileSync(at("last"), ""); // told of behind all that was before
  await all;
  seen.close();
  rmSync(at("last"));
  expect(renamed).toBe(1); // it would be two if the old one had gone aside
  expect([readFileSync(at("to"), "utf8"), statSync(at("to")).ino === before]).toEqual(["new", false]);
});

test("so is a directory", async () => {
  for (const old of ["directory", "file"] as const) {
    if (old === "file") writeFileSync(at("to"), "old");
    else mkdirSync(at("to", "old"), { recursive: true });
    const moved: string[] = [];
    const seen = watch(directory, (event, name) => void (event === "rename" && name !== null && !/^\.pyro-[0-9a-f]{12}$/.test(name) && moved.push(name)));
    await write([folder(""), file("new", "new")], { replace: true });
    await new Promise((resolve) => setTimeout(resolve, 50));
    seen.close();
    expect([moved, readdirSync(at("to")), readdirSync(directory)]).toEqual([["to", "to"], ["new"], ["to"]]); // away and here, and no third name; when they are the same moment does not show
    rmSync(at("to"), { recursive: true });
  }
});

test("where something is mounted nothing is replaced: it would go aside with the rest, and could not be removed", async ({ skip }) => {
  skip(process.geteuid!() !== 0, "only root mounts");
  for (const place of [at("to", "a b"), at("to")]) {
    mkdirSync(place, { recursive: true });
    skip(spawnSync("mount", ["-t", "tmpfs", "tmpfs", place]).status !== 0, "nothing can be mounted here");
    try {
      writeFileSync(join(place, "precious"), "");
      await expect(write([folder("")], { replace: true })).rejects.toMatchObject({ code: "DENIED", message: `${at("to")} can't be replaced: ${place} is mounted.` });
      expect([readdirSync(place), readdirSync(directory)]).toEqual([["precious"], ["to"]]);
    } finally {
      execFileSync("umount", [place]);
    }
  }
});

test("a name as long as names can be; a link as the whole tree", async () => {
  const name = "n".repeat(255);
  await writeHostTree(at(name), each([file("", "x")]), new CopyCounter());
  await writeHostTree(at("l"), each([link("", "nowhere")]), new CopyCounter());
  expect([readdirSync(directory), readlinkSync(at("l"))]).toEqual([["l", name], "nowhere"]);
});

test("a destination that can't be one says so of itself", async () => {
  writeFileSync(at("f"), "");
  await expect(writeHostTree(at("f", "below"), each([file("", "x")]), new CopyCounter())).rejects.toMatchObject({ code: "NOT_FOUND", message: `The directory ${at("f")} is not there.` });
  await expect(writeHostTree(at("n".repeat(256)), each([file("", "x")]), new CopyCounter())).rejects.toMatchObject({ code: "DENIED", hint: "Give a destination that you can write to." });
});
