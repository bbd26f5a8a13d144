/** Environments that are built here, and exported: from a layer as a guest may send it to a name that others can use. */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { findProgram, runChild } from "../../src/base/child.js";
import { takeLock } from "../../src/base/lock.js";
import { places } from "../../src/environments/places.js";
import { writeErofs } from "../../src/environments/erofs.js";
import { readErofs as entriesOf } from "../../src/environments/erofs-read.js";
import { checkBuildBase, checkBuildName, exportEnvironment, holdLayer, inspectEnvironment, listEnvironments, openEnvironment, pruneEnvironments, pullEnvironment, removeEnvironment } from "../../src/environments/index.js";
import { readTar } from "../../src/environments/tar.js";
import { writeTar } from "../../src/environments/tar-write.js";
import { readErofs } from "./erofs-reader.js";
import { makeFakeHost, makeKernel, seeded, useTemporary } from "./fixtures.js";
import { Layout } from "./image-maker.js";
import { archive, stream } from "./tar-maker.js";

const guest = vi.hoisted(() => ({ path: "" }));
vi.mock("../../src/base/paths.js", async (original) => {
  const real = await original<typeof import("../../src/base/paths.js")>();
  return { ...real, nativeProgram: (name: "pyro-guest" | "pyro-keeper") => (name === "pyro-guest" ? guest.path : real.nativeProgram(name)) };
});

const temporary = useTemporary();
const before = { ...process.env };
let count = 0;
let layout: Layout;
let host: Awaited<ReturnType<typeof makeFakeHost>>;
const lower = archive({ name: "etc/", type: "5" }, { name: "etc/hostname", data: "lower" }, { name: "gone", data: "x" }, { name: "old/", type: "5" }, { name: "old/a" });

beforeAll(async () => {
  guest.path = join(temporary.path(), "guest");
  await writeFile(guest.path, "the guest program");
  layout = new Layout(join(temporary.path(), "layout"));
  await layout.image([lower], { tag: "base", compress: "gzip", config: { Env: ["A=1"], Entrypoint: ["/init"], User: "7", Labels: { x: "y" } } });
  await layout.finish();
  await mkdir(join(temporary.path(), "host"));
  host = await makeFakeHost(join(temporary.path(), "host"));
  await mkdir(join(host.root, "root"));
  process.env["PATH"] = `${host.bin}:${before["PATH"]}`;
  process.env["PYRO_KERNEL_DIR"] = await makeKernel(temporary.path());
});

beforeEach(() => {
  process.env["XDG_CACHE_HOME"] = join(temporary.path(), `cache${++count}`);
});

afterAll(() => {
  process.env = before;
});

const base = () => `${layout.path}:base`;
const place = (...path: string[]) => join(process.env["XDG_CACHE_HOME"]!, "pyro-mcp", ...path);

async function build(name: string, from: string, layer: AsyncIterable<Uint8Array>, { maxBytes = 1 << 20, signal }: { maxBytes?: number; signal?: AbortSignal } = {}) {
  const baseDigest = (await openEnvironment(from))!.digest;
  const held = await holdLayer({ name, baseName: from, baseDigest, createdBy: "pyro env build -- x" }, layer, { maxBytes, ...(signal && { signal }) });
  try {
    return await held.install();
  } finally {
    await held.release();
  }
}

async function tree(name: string): Promise<Record<string, string | undefined>> {
  return Object.fromEntries([...readErofs((await openEnvironment(name))!.rootDisk)].map(([path, inode]) => [path, inode.content?.toString()]).filter(([path]) => path !== ""));
}

/** All of a disk but where it is on it. */
const told = (path: string) => [...readErofs(path)].map(([name, inode]) => [name, { ...inode, nid: 0, content: "" }]);

const layer = archive({ name: "etc/", type: "5", mode: 0o700 }, { name: "etc/.wh.none" }, { name: ".wh.gone" }, { name: "old/", type: "5" }, { name: "old/.wh..wh..opq" }, { name: "old/b", data: "new" }, { name: "tool", mode: 0o4755, data: "tool" });
const built = { "etc": undefined, "etc/hostname": "lower", "old": undefined, "old/b": "new", "tool": "tool" };

test("over an image: its tree with what was changed, its configuration, and layers that others can use", async () => {
  await pullEnvironment(base());
  expect(await build("mine", base(), stream(layer))).toMatchObject({ name: "mine", installed: true, distribution: "oci", description: `Built from ${base()}`, source: "built here" });
  expect(await tree("mine")).toEqual(built);
  expect((await openEnvironment("mine"))!.config).toEqual({ env: { A: "1" }, entrypoint: ["/init"], user: "7" });
  expect((await inspectEnvironment("mine")).image!.layers).toHaveLength(2);
  const target = join(temporary.path(), `export${count}`);
  const { manifestDigest } = await exportEnvironment("mine", target);
  const manifest = JSON.parse(await readFile(join(target, "blobs/sha256", manifestDigest.slice(7)), "utf8")) as { config: { digest: string }; layers: { mediaType: string; digest: string }[] };
  expect(manifest.layers.map(({ mediaType }) => mediaType)).toEqual(["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+gzip"]);
  const config = JSON.parse(await readFile(join(target, "blobs/sha256", manifest.config.digest.slice(7)), "utf8")) as { architecture: string; os: string; config: unknown; history?: unknown };
  expect(config).toMatchObject({ architecture: "amd64", os: "linux", config: { Env: ["A=1"], Entrypoint: ["/init"], User: "7", Labels: { x: "y", "org.opencontainers.image.title": `Built from ${base()}` } } });
  expect(config.history).toBeUndefined(); // the base has none, and half of one would be wrong
  await pullEnvironment("again", { source: target });
  expect((await openEnvironment("again"))!.digest).toBe((await openEnvironment("mine"))!.digest);
});

test("umoci and skopeo agree about what was exported", async ({ skip }) => {
  for (const program of ["umoci", "skopeo"]) skip(!(await findProgram(program).then(() => true, () => false)), `${program} is not installed`);
  await pullEnvironment(base());
  await build("mine", base(), stream(layer));
  const target = join(temporary.path(), `export${count}`);
  await exportEnvironment("mine", target);
  const { stdout } = await runChild("skopeo", ["inspect", "--config", `oci:${target}:latest`]);
  expect(JSON.parse(stdout.toString())).toMatchObject({ config: { User: "7" } });
  const unpacked = join(temporary.path(), `unpacked${count}`);
  const { code, stderr } = await runChild("umoci", ["raw", "unpack", ...(process.getuid!() === 0 ? [] : ["--rootless"]), "--image", `${target}:latest`, unpacked]);
  expect(code, stderr).toBe(0);
  expect((await readdir(unpacked, { recursive: true })).sort()).toEqual(Object.keys(built).sort());
});

test("on top of what was built, and the same name again", async () => {
  await pullEnvironment(base());
  await build("mine", base(), stream(layer));
  const first = (await openEnvironment("mine"))!.digest;
  await build("mine", "mine", stream(archive({ name: ".wh.tool" }, { name: "more" })));
  expect(await tree("mine")).toEqual({ "etc": undefined, "etc/hostname": "lower", "old": undefined, "old/b": "new", "more": "" });
  expect((await openEnvironment("mine"))!.digest).not.toBe(first);
  await pruneEnvironments();
  expect(await readdir(place("environments"))).not.toContain(first.slice(7));
});

test("needs nothing but what is kept: made again, without its base, and not where that is gone", async () => {
  await pullEnvironment(base());
  await build("mine", base(), stream(layer));
  const { digest } = (await openEnvironment("mine"))!;
  await removeEnvironment(base());
  await pruneEnvironments();
  expect((await pullEnvironment("mine", { force: true })).digest).toBe(digest);
  expect(await tree("mine")).toEqual(built);
  await rm(place("environments", digest.slice(7), "root.erofs"));
  expect((await pullEnvironment("mine")).digest).toBe(digest);
  const layers = (await inspectEnvironment("mine")).image!.layers;
  await rm(place("blobs/sha256", layers[1]!.digest.slice(7)));
  await pullEnvironment("mine"); // whole as it is
  await expect(pullEnvironment("mine", { force: true })).rejects.toMatchObject({ code: "NOT_FOUND", hint: "Build it again." });
  await expect(exportEnvironment("mine", join(temporary.path(), "no"))).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
  expect(await tree("mine")).toEqual(built); // what was there stays
  await removeEnvironment("mine");
  expect(await readdir(place("blobs/sha256"))).toEqual([]);
});

test("prune leaves what was built, by age, by size and where it is damaged, and it is mended", async () => {
  await pullEnvironment(base());
  await build("mine", base(), stream(layer));
  const { digest } = (await openEnvironment("mine"))!;
  await pruneEnvironments({ olderThanSeconds: 0, maxMib: 0 });
  expect((await listEnvironments()).filter((each) => each.installed).map((each) => each.name)).toEqual(["mine"]);
  await rm(place("environments", digest.slice(7), "manifest.json"));
  await pruneEnvironments();
  expect(await readdir(place("environments"))).not.toContain(digest.slice(7));
  expect((await pullEnvironment("mine")).digest).toBe(digest);
  expect(await tree("mine")).toEqual(built);
  // Without its manifest there is nothing that it could be made of.
  const { manifestDigest } = (await inspectEnvironment("mine")).image!;
  await rm(place("blobs/sha256", manifestDigest.slice(7)));
  await rm(place("environments", digest.slice(7), "manifest.json"));
  await pruneEnvironments();
  expect(await readdir(place("blobs/sha256"))).toEqual([]);
  expect(await readdir(place("environments/names"))).toEqual([]);
});

test("over packages: the base becomes a layer of its own, and can be exported itself", async () => {
  const kernel = process.env["PYRO_KERNEL_DIR"];
  delete process.env["PYRO_KERNEL_DIR"];
  try {
    await pullEnvironment("debian:12-base");
    const exported = join(temporary.path(), `export${count}`);
    const { manifestDigest } = await exportEnvironment("debian:12-base", exported);
    await pullEnvironment("again", { source: exported });
    expect(told((await openEnvironment("again"))!.rootDisk)).toEqual(told((await openEnvironment("debian:12-base"))!.rootDisk));
    expect((await openEnvironment("again"))!.config).toEqual({ env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }, cmd: ["bash"], workingDir: "/root" });
    expect((await exportEnvironment("debian:12-base", `${exported}.2`)).manifestDigest).toBe(manifestDigest);
    await build("mine", "debian:12-base", stream(archive({ name: "etc/apt/.wh.sources.list" }, { name: "etc/x" })));
    expect(Object.keys(await tree("mine")).filter((path) => path.startsWith("etc"))).toEqual(["etc", "etc/apt", "etc/x"]);
    const { layers } = (await inspectEnvironment("mine")).image!;
    expect(layers[0]).toEqual((await inspectEnvironment("again")).image!.layers[0]);
    expect((await host.calls()).filter((call) => call.startsWith("mmdebstrap"))).toHaveLength(1);
  } finally {
    process.env["PYRO_KERNEL_DIR"] = kernel;
  }
});

test("names that can't be", async () => {
  process.env["PYRO_CATALOG"] = join(temporary.path(), "catalog.json");
  await writeFile(process.env["PYRO_CATALOG"], JSON.stringify({ schema_version: 1, environments: [{ name: "ci", sources: ["localhost:1/a"] }] }));
  for (const name of ["debian:12", "ci", "../x", ""]) await expect(checkBuildName(name)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await checkBuildName("ci2");
  delete process.env["PYRO_CATALOG"];
});

const bomb = async function* () {
  for (;;) yield Buffer.alloc(65_536);
};
const wrong: [string, () => AsyncIterable<Uint8Array>, string | RegExp][] = [
  ["without an end", bomb, /maxNewLayerBytes/],
  ["that is no archive", () => stream(Buffer.alloc(4096, "x")), /^Layer sha256:/],
  ["that leads out", () => stream(archive({ name: "../x" })), /has "\.\." in it/],
  ["with a hard link to nothing", () => stream(archive({ name: "x", type: "1", link: "etc/none" })), /no target/],
  ["with a whiteout of no name", () => stream(archive({ name: "etc/.wh." })), /whiteout of no name/],
];
for (const [what, content, message] of wrong) {
  test(`a layer ${what} leaves nothing`, async () => {
    await pullEnvironment(base());
    const blobs = await readdir(place("blobs/sha256"));
    await expect(build("mine", base(), content())).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringMatching(message) as string });
    expect(await readdir(place("blobs/sha256"))).toEqual(blobs);
    expect(await readdir(place("tmp"))).toEqual([]);
    expect((await listEnvironments()).filter((each) => each.installed).map((each) => each.name)).toEqual([base()]);
  });
}

test("a layer that is cancelled while it comes leaves nothing", async () => {
  await pullEnvironment(base());
  const stop = new AbortController();
  const endless = async function* () {
    yield Buffer.alloc(512);
    stop.abort();
    yield* bomb();
  };
  await expect(build("mine", base(), endless(), { signal: stop.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  expect(await readdir(place("tmp"))).toEqual([]);
});

test("a build that changes nothing is what was built, and not its base", async () => {
  await pullEnvironment(base());
  await build("mine", base(), stream(archive({ name: "etc/", type: "5" })));
  const { image, source } = await inspectEnvironment("mine");
  expect(source).toBe("built here");
  expect(image!.layers).toHaveLength(2);
  expect((await exportEnvironment("mine", join(temporary.path(), "nothing-new"))).manifestDigest).toBe(image!.manifestDigest);
  expect((await inspectEnvironment(base())).image!.layers).toHaveLength(1);
  await removeEnvironment(base());
  await pruneEnvironments();
  await pullEnvironment("mine", { force: true }); // of what is kept
});

test("two that build the same at once, one of which is broken off: the other has all that it is made of", async () => {
  await pullEnvironment(base());
  const baseDigest = (await openEnvironment(base()))!.digest;
  const stop = new AbortController();
  const hold = (name: string, onProgress: (message: string) => void, signal?: AbortSignal) => holdLayer({ name, baseName: base(), baseDigest, createdBy: name }, stream(layer), { maxBytes: 1 << 20, ...(signal && { signal }), onProgress: ({ message }) => onProgress(message) });
  const named = await takeLock(places.nameLock("first")); // so that it stops with its layer in place
  const second = await hold("second", (message) => message.startsWith("another process") && stop.abort());
  let installed: Promise<unknown> | undefined;
  const first = await hold("first", (message) => {
    if (message === "another process is pulling first") installed ??= second.install().finally(() => stop.abort());
  }, stop.signal);
  await expect(first.install()).rejects.toMatchObject({ code: "CANCELLED" });
  await installed;
  await named.release();
  await Promise.all([first.release(), second.release()]);
  await exportEnvironment("second", join(temporary.path(), "second"));
});

test("a base whose layers are gone is said to be so", async () => {
  await pullEnvironment(base());
  const { layers } = (await inspectEnvironment(base())).image!;
  await rm(place("blobs/sha256", layers[0]!.digest.slice(7)));
  const gone = { code: "ENVIRONMENT_INVALID", hint: `pyro env pull ${base()} --force` };
  await expect(build("mine", base(), stream(layer))).rejects.toMatchObject(gone);
  await expect(checkBuildBase((await openEnvironment(base()))!.digest)).rejects.toMatchObject(gone); // which is asked before the command is run
});

test("a disk becomes an archive, and that the same disk again", async () => {
  const random = seeded(3);
  const long = "n".repeat(200);
  const entries = archive(
    { name: "./", type: "5", mode: 0o751, mtime: 5 }, { name: "d/", type: "5", pax: { mtime: "-1.25", "SCHILY.xattr.user.x": Buffer.from([0, 1, 255, 10]), "SCHILY.xattr.trusted.y": "" } }, { name: `d/${long}/${long}`, data: "long", pax: { path: `d/${long}/${long}`, uid: "4000000000", gid: "3000000000", mtime: "1700000000.000000001" } },
    { name: "d/set", mode: 0o6755, data: Buffer.from(Array.from({ length: 70_000 }, () => random(256))), pax: { "SCHILY.xattr.security.capability": Buffer.from("0100000200200000000000000000000000000000", "hex") } }, { name: "a-link", type: "1", link: "d/set" }, { name: "z-link", type: "1", link: "d/set" },
    { name: "s", type: "2", link: "d/set" }, { name: "t", type: "2", link: "x", pax: { linkpath: "t".repeat(4000) } }, { name: "s2", type: "1", link: "s" }, { name: "null", type: "3", device: [1, 3] }, { name: "disk", type: "4", device: [259, 70_000] }, { name: "pipe", type: "6" }, { name: Buffer.from([0xff, 0xfe, 0x0a]), data: "bytes" },
    { name: "sparse", data: `1\n1048576\n4096\n${"\0".repeat(512 - 15)}${"d".repeat(4096)}`, pax: { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse", "GNU.sparse.realsize": "2097152" } },
    ...Array.from({ length: 600 }, (_, index) => ({ name: `many/${"file".repeat(10)}${index}`, data: `${index}` })),
  );
  const [first, second] = [join(temporary.path(), "first.erofs"), join(temporary.path(), "second.erofs")];
  await writeErofs(readTar(stream(entries)), first);
  await writeErofs(readTar(writeTar(entriesOf(first))), second);
  expect(told(second)).toEqual(told(first));
  expect(readErofs(first).size).toBeGreaterThan(600);
  const tar: Uint8Array[] = [];
  for await (const part of writeTar(entriesOf(first))) tar.push(part);
  expect(gzipSync(Buffer.concat(tar)).length).toBeLessThan(200_000);
  // Read by other code than ours.
  const listed = await runChild("python3", ["-c", "import sys, tarfile, io\nfor m in tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())): print(m.type.decode(), m.uid, m.mtime, m.size, len(m.name), len(m.linkname))"], { input: Buffer.concat(tar) });
  expect(listed.stdout.toString().split("\n").slice(0, 9)).toEqual(["5 0 5 0 1 0", "0 0 0 70000 8 0", "5 0 -1.25 0 3 0", "5 0 0 0 204 0", "0 4000000000 1700000000.0 4 405 0", "1 0 0 0 7 8", "4 0 0 0 6 0", "5 0 0 0 6 0", "0 0 0 1 48 0"]);
});
