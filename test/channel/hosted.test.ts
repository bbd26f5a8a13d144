import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connectChannel, type Channel } from "../../src/channel/index.js";

// The guest's real C code, under sanitizers, over a socket pair. Nothing here changes the host: no identity, clock or power-off.
const program = new URL("../../build/guest/pyro-guest-hosted", import.meta.url).pathname;
const missing = existsSync(program) ? "" : " (skipped: no build/guest/pyro-guest-hosted; `make -C guest hosted` builds it)";
const real = test.skipIf(missing !== "");

let child: ChildProcess;
let port: Duplex;
let channel: Channel;
let directory: string;
let complaints = "";

beforeEach(async () => {
  if (missing !== "") return;
  directory = mkdtempSync(join(tmpdir(), "pyro-channel-"));
  complaints = "";
  child = spawn(program, ["3"], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  child.stderr!.on("data", (part: Buffer) => (complaints += part.toString().slice(0, 4096)));
  port = child.stdio[3] as Duplex;
  channel = await connectChannel(port, { deadlineMs: 20_000 });
});

afterEach(async () => {
  if (missing !== "") return;
  channel.close();
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }
  rmSync(directory, { recursive: true });
  expect(complaints).not.toMatch(/Sanitizer|runtime error/);
});

real(`commands: output, input, every byte, exit code, signal, not found${missing}`, async () => {
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

real(`files: write, read, stat, list${missing}`, async () => {
  const path = join(directory, "a/b");
  await channel.writeFile(path, Buffer.alloc(1_000_000, "y"), { mode: 0o640, makeParents: true });
  expect(readFileSync(path).equals(Buffer.alloc(1_000_000, "y"))).toBe(true);
  expect(Buffer.concat(await channel.readFile(path, { offset: 999_990 }).toArray()).toString()).toBe("yyyyyyyyyy");
  expect(await channel.stat(path)).toMatchObject({ type: "file", mode: 0o640, sizeBytes: 1_000_000n });
  expect((await channel.list(join(directory, "a"))).map(({ name }) => name.toString())).toEqual(["b"]);
  await expect(channel.stat("/no/such")).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(await channel.ping()).toBeGreaterThan(0);
});

real(`directories, names, owners, times and links${missing}`, async () => {
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

real(`removal: what is empty, what is not, links, 3,000 levels, 3,000 files${missing}`, async () => {
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

real(`a file in many pieces leaves no listeners behind${missing}`, async () => {
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
