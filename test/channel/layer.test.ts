import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, chmodSync, linkSync, lutimesSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connectChannel, type Channel } from "../../src/channel/index.js";
import { readTar, type TarEntry } from "../../src/environments/tar.js";

// What a layer is made of, by the guest's real C code under sanitizers, over a directory that stands in for the overlay's.
const program = new URL("../../build/guest/pyro-guest-hosted", import.meta.url).pathname;
execFileSync("make", ["-s", "-C", new URL("../../guest", import.meta.url).pathname, "hosted"]);

let child: ChildProcess;
let channel: Channel;
let directory: string;
let complaints: string;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pyro-layer-"));
  complaints = "";
  child = spawn(program, ["3"], { stdio: ["ignore", "ignore", "pipe", "pipe"], env: { ...process.env, PYRO_CHANGES: directory } });
  child.stderr!.on("data", (part: Buffer) => (complaints += part.toString().slice(0, 4096)));
  channel = await connectChannel(child.stdio[3] as Duplex, { deadlineMs: 120_000 });
});

afterEach(async () => {
  channel.close();
  const exited = child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined;
  child.kill("SIGKILL");
  await exited;
  rmSync(directory, { recursive: true });
  expect(complaints).toBe("");
});

const at = (...names: string[]) => join(directory, ...names);

async function layer(): Promise<Record<string, Omit<TarEntry, "path" | "content"> & { data: string }>> {
  const entries: Awaited<ReturnType<typeof layer>> = {};
  for await (const { content, path, ...entry } of readTar(channel.readLayer().content)) {
    const parts: Uint8Array[] = [];
    for await (const part of content()) parts.push(part);
    entries[path.toString("latin1")] = { ...entry, data: Buffer.concat(parts).toString("latin1") };
  }
  return entries;
}

function setAttribute(path: string, name: string, hex: string): void {
  execFileSync("python3", ["-c", "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))", path, name, hex], { stdio: "ignore" });
}

test("files, directories, links, fifos, times, long names: all as an archive has them", async () => {
  const long = "n".repeat(200);
  mkdirSync(at("d", long), { recursive: true });
  writeFileSync(at("d", long, "file"), "content");
  writeFileSync(at("empty"), "");
  writeFileSync(at("many"), Buffer.alloc(200_001, "m"));
  linkSync(at("many"), at("more"));
  symlinkSync("t".repeat(300), at("link"));
  symlinkSync("d", at("short"));
  execFileSync("mkfifo", [at("fifo")]);
  chmodSync(at("empty"), 0o4711);
  execFileSync("touch", ["-d", "@-1.5", at("empty")]); // Node takes it for now
  utimesSync(at("many"), 0, 1_700_000_000.25);
  lutimesSync(at("short"), 0, 5);
  writeFileSync(at("n\xe4me\n"), "");
  const found = await layer();
  expect(Object.keys(found).sort()).toEqual(["d/", `d/${long}/`, `d/${long}/file`, "empty", "fifo", "link", "many", "more", Buffer.from("n\xe4me\n").toString("latin1"), "short"]);
  expect(found["empty"]).toMatchObject({ type: "file", mode: 0o4711, size: 0, mtime: { seconds: -2, nanoseconds: 500_000_000 } });
  expect(found[`d/${long}/file`]).toMatchObject({ type: "file", data: "content" });
  const [first, second] = found["many"]!.type === "file" ? ["many", "more"] : ["more", "many"];
  expect(found[first!]).toMatchObject({ type: "file", data: "m".repeat(200_001), mtime: { seconds: 1_700_000_000, nanoseconds: 250_000_000 } });
  expect(found[second!]).toMatchObject({ type: "hardlink", linkTarget: Buffer.from(first!), data: "" });
  expect(found["link"]).toMatchObject({ type: "symlink", linkTarget: Buffer.from("t".repeat(300)) });
  expect(found["short"]).toMatchObject({ type: "symlink", linkTarget: Buffer.from("d"), mtime: { seconds: 5, nanoseconds: 0 } });
  expect(found["fifo"]).toMatchObject({ type: "fifo" });
});

test("other programs read it", async () => {
  mkdirSync(at("d", "n".repeat(120)), { recursive: true });
  writeFileSync(at("d", "n".repeat(120), "f"), "x");
  const tar = Buffer.concat(await channel.readLayer().content.toArray() as Buffer[]);
  expect(tar.length % 512).toBe(0);
  expect(execFileSync("tar", ["-tvf", "-"], { input: tar, encoding: "utf8" }).split("\n").map((line) => line.split(" ").at(-1))).toEqual(["d/", `d/${"n".repeat(120)}/`, `d/${"n".repeat(120)}/f`, ""]);
});

test("what was removed, and what hides a directory below", async ({ skip }) => {
  mkdirSync(at("d/new"), { recursive: true });
  try {
    execFileSync("mknod", [at("d/gone"), "c", "0", "0"], { stdio: "ignore" });
    setAttribute(at("d/new"), "trusted.overlay.opaque", "79");
  } catch {
    skip(); // only root may, and not everywhere
  }
  setAttribute(at("d/new"), "user.kept", "00ff");
  const found = await layer();
  expect(Object.keys(found).sort()).toEqual(["d/", "d/.wh.gone", "d/new/", "d/new/.wh..wh..opq"]);
  expect(found["d/new/"]!.xattrs).toEqual(new Map([["user.kept", Buffer.from([0, 255])]]));
  expect(found["d/.wh.gone"]).toMatchObject({ type: "file", size: 0 });
});

test("what is a VM's own is in no layer", async () => {
  for (const name of ["dev", "proc/x", "sys", "run", "etc/apt"]) mkdirSync(at(name), { recursive: true });
  for (const name of ["hosts", "resolv.conf", "machine-id", "hostname"]) writeFileSync(at("etc", name), "");
  writeFileSync(at("hosts"), "");
  expect(Object.keys(await layer()).sort()).toEqual(["etc/", "etc/apt/", "etc/hostname", "hosts"]);
});

test("a name that means something else in a layer", async () => {
  writeFileSync(at(".wh.x"), "");
  await expect(layer()).rejects.toMatchObject({ code: "INVALID_STATE", message: expect.stringContaining(".wh.x: a name that begins with .wh. means in a layer that something was removed") as string });
});

test("a file that grows while it is read has the size that it had", async () => {
  writeFileSync(at("log"), Buffer.alloc(3_000_000, "a"));
  const { content } = channel.readLayer();
  const parts: Buffer[] = [];
  for await (const part of content as AsyncIterable<Buffer>) {
    appendFileSync(at("log"), Buffer.alloc(100_000, "b"));
    parts.push(part);
  }
  for await (const entry of readTar((async function* () { yield* parts; })())) expect([entry.path.toString(), entry.size]).toEqual(["log", 3_000_000]);
});
