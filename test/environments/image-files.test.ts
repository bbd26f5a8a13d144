/** Images out of files with names and in archives as they happen to be, and what is said of them. */
import { cp, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { exportEnvironment, inspectEnvironment, listEnvironments, pullEnvironment, removeEnvironment } from "../../src/environments/index.js";
import { parseImageName } from "../../src/environments/images/reference.js";
import { readErofs } from "./erofs-reader.js";
import { makeKernel, useTemporary } from "./fixtures.js";
import { Layout, sha256 } from "./image-maker.js";
import { archive, stream } from "./tar-maker.js";

const guest = vi.hoisted(() => ({ path: "" }));
vi.mock("../../src/base/paths.js", async (original) => {
  const real = await original<typeof import("../../src/base/paths.js")>();
  return { ...real, nativeProgram: (name: "pyro-guest" | "pyro-keeper") => (name === "pyro-guest" ? guest.path : real.nativeProgram(name)) };
});

const temporary = useTemporary();
const before = { ...process.env };
const directory = process.cwd();
let count = 0;
const layer = archive({ name: "etc/", type: "5" }, { name: "etc/hostname", data: "here" });
const config = JSON.stringify({ os: "linux", architecture: "amd64", config: {}, rootfs: { type: "layers", diff_ids: [sha256(layer)] } });

beforeAll(async () => {
  guest.path = join(temporary.path(), "guest");
  await writeFile(guest.path, "the guest program");
  process.env["PYRO_KERNEL_DIR"] = await makeKernel(temporary.path());
});

beforeEach(() => {
  process.env["XDG_CACHE_HOME"] = join(temporary.path(), `cache${++count}`);
});

afterAll(() => {
  process.chdir(directory);
  process.env = before;
});

async function makeLayout(path: string, compress: "plain" | "gzip" = "plain"): Promise<string> {
  const layout = new Layout(path);
  await layout.image([layer], { tag: "one", compress });
  return layout.finish();
}

test("an archive with a name that comes twice: the last one is it", async () => {
  const input = stream(archive({ name: "layer.tar", data: "an older one" }, { name: "layer.tar", data: layer }, { name: "config.json", data: config }, { name: "manifest.json", data: JSON.stringify([{ Config: "config.json", Layers: ["layer.tar"] }]) }));
  await pullEnvironment("twice", { source: "-", input });
  const { directory: place } = await inspectEnvironment("twice");
  expect([...readErofs(join(place!, "root.erofs")).keys()]).toContain("etc/hostname");
  await expect(pullEnvironment("twice", { force: true })).rejects.toMatchObject({ code: "NOT_FOUND", message: "The environment twice came from an archive on standard input, which is wanted again to make it anew." });
});

test("an archive that is compressed, as docker load takes it; of what is not read, how it is", async () => {
  const saved = archive({ name: "layer.tar", data: layer }, { name: "config.json", data: config }, { name: "manifest.json", data: JSON.stringify([{ Config: "config.json", Layers: ["layer.tar"] }]) });
  for (const [name, packed] of [["gzip", gzipSync(saved)], ["zstd", zstdOf(saved)]] as const) {
    const path = join(temporary.path(), `saved.${name}`);
    await writeFile(path, packed);
    expect(await filesOf(path)).toEqual(["", "etc", "etc/hostname"]);
    await pullEnvironment(name, { source: "-", input: stream(packed, 1) }); // its first bytes may come one by one
    const message = name === "gzip" ? "the archive on standard input: Its compressed data is damaged: unexpected end of file." : "the archive on standard input: Its zstd data is damaged.";
    await expect(pullEnvironment("cut", { source: "-", input: stream(packed.subarray(0, -20)) })).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message });
  }
  const xz = Readable.from(stream(Buffer.concat([Buffer.from("fd377a585a00", "hex"), Buffer.alloc(100)]), 3));
  await expect(pullEnvironment("xz", { source: "-", input: xz })).rejects.toMatchObject({ code: "UNSUPPORTED", message: "the archive on standard input is compressed with xz; read are gzip, zstd and what is not compressed.", hint: "xz -dc ARCHIVE | pyro env pull NAME --source -" });
  expect(xz.destroyed).toBe(true); // a file stayed open, and a program was waited for that still writes
  // A frame header with a window of 16 MiB, then blocks of 128 KiB that are one zero each.
  const bomb = stream(Buffer.concat([Buffer.from("28b52ffd0070", "hex"), Buffer.alloc(4000, Buffer.from("02001000", "hex")), Buffer.from("03001000", "hex")]));
  await expect(pullEnvironment("bomb", { source: "-", input: bomb })).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining("over the limit maxExpansionRatio (1100)") });
});

/** One frame with one block, as it is. */
function zstdOf(data: Buffer): Buffer {
  const block = Buffer.alloc(3);
  block.writeUIntLE(1 + data.length * 8, 0, 3);
  return Buffer.concat([Buffer.from("28b52ffd0038", "hex"), block, data]);
}

test("what docker save writes since version 25, a layout: by the whole name, by its end, by the tag", async () => {
  const layout = new Layout(join(temporary.path(), "saved"));
  const other = archive({ name: "etc/other", data: "x" });
  const annotations = (name: string, tag: string) => ({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
  const [{ platform: _one, ...ci }, { platform: _two, ...busy }] = [await layout.image([layer]), await layout.image([other])];
  layout.manifests.splice(0);
  layout.manifests.push({ ...ci, annotations: annotations("docker.io/team/ci:latest", "latest") }, { ...ci, annotations: annotations("docker.io/team/ci:1", "1") }, { ...busy, annotations: annotations("docker.io/library/busybox:latest", "latest") });
  const path = await layout.finish();
  for (const tag of ["team/ci:1", "ci:1", "docker.io/team/ci:latest", "1"]) expect(await filesOf(`${path}:${tag}`)).toEqual(["", "etc", "etc/hostname"]);
  expect(await filesOf(`${path}:busybox:latest`)).toEqual(["", "etc", "etc/other"]);
  const names = "docker.io/team/ci:latest, docker.io/library/busybox:latest";
  await expect(pullEnvironment(`${path}:latest`)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: `${path} has 2 images that could be meant.`, hint: `Say which: ${path}:docker.io/team/ci:latest. It has ${names}.` });
  await expect(pullEnvironment(`${path}:nine`)).rejects.toMatchObject({ code: "NOT_FOUND", hint: "It has docker.io/team/ci:latest, docker.io/team/ci:1, docker.io/library/busybox:latest." });
  layout.manifests.pop();
  await layout.finish();
  expect(await filesOf(path)).toEqual(["", "etc", "etc/hostname"]); // two names of one image are no question
});

async function filesOf(name: string): Promise<string[]> {
  await pullEnvironment(name);
  return [...readErofs(join((await inspectEnvironment(name)).directory!, "root.erofs")).keys()].sort();
}

test("a directory for commands that is written in a roundabout way", async () => {
  const layout = new Layout(join(temporary.path(), "roundabout"));
  await layout.image([layer], { tag: "one", config: { WorkingDir: "/srv/../../app//./work/" } });
  await pullEnvironment("mine", { source: await layout.finish() });
  const { directory: place } = await inspectEnvironment("mine");
  expect([...readErofs(join(place!, "root.erofs")).keys()].sort()).toEqual(["", "app", "app/work", "etc", "etc/hostname"]);
});

test("a path that is short from here and long from the root", async () => {
  const deep = join(temporary.path(), "d".repeat(200), "e".repeat(200));
  await mkdir(deep, { recursive: true });
  await makeLayout(join(deep, "image"));
  process.chdir(deep);
  await pullEnvironment("mine", { source: "./image" });
  await pullEnvironment("mine"); // which knows where from
  expect(await inspectEnvironment("mine")).toMatchObject({ source: join(deep, "image") });
  await removeEnvironment("mine");
  process.chdir(directory);
});

test("a path that can't be kept as text is refused before anything is made of it", async () => {
  const path = join(temporary.path(), "two\nlines");
  await makeLayout(path);
  await expect(pullEnvironment("mine", { source: path })).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("characters in it that can't be shown") });
  await expect(pullEnvironment(path)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(parseImageName(`/${"d/".repeat(600)}x`)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("more than 1024 characters") });
});

test("one image from two places is said to be from where each name has it", async () => {
  const [one, two] = [await makeLayout(join(temporary.path(), "one")), join(temporary.path(), "two")];
  await cp(one, two, { recursive: true });
  await pullEnvironment("a", { source: one });
  await pullEnvironment("b", { source: two });
  await pullEnvironment(two);
  expect((await listEnvironments()).filter((each) => each.installed).map(({ name, source }) => [name, source])).toEqual([[two, two], ["a", one], ["b", two]]);
  expect((await inspectEnvironment("b")).image!.reference).toBe(two);
});

test("the same files packed in another way are exported with the digests that they came with", async () => {
  const [plain, packed] = [await makeLayout(join(temporary.path(), "plain")), await makeLayout(join(temporary.path(), "packed"), "gzip")];
  for (const [name, source] of [["plain", plain], ["packed", packed]] as const) {
    await pullEnvironment(name, { source });
    const { manifestDigest, directory: exported } = await exportEnvironment(name, join(temporary.path(), `${name}-exported`));
    expect((await readdir(join(source, "blobs/sha256"))).sort()).toEqual((await readdir(join(exported, "blobs/sha256"))).sort());
    expect(await readdir(join(source, "blobs/sha256"))).toContain(manifestDigest.slice("sha256:".length));
  }
});

test("to where nothing can be written: which directory, and what to do", async () => {
  await pullEnvironment("mine", { source: await makeLayout(join(temporary.path(), "exported")) });
  const above = join(temporary.path(), "nowhere");
  await expect(exportEnvironment("mine", join(above, "x"))).rejects.toMatchObject({ code: "NOT_FOUND", message: `There is no directory ${above}.`, hint: "What is exported is a new directory in one that is there." });
  await expect(exportEnvironment("mine", join(guest.path, "x"))).rejects.toMatchObject({ code: "NOT_FOUND", message: `There is no directory ${guest.path}.` });
});
