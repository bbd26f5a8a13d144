/** Pulling, opening, mending and pruning, with stand-ins for the programs that fetch (fixtures.ts) and the real keeper. */
import { chmod, copyFile, mkdir, open, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { holdEnvironment, inspectEnvironment, listEnvironments, openEnvironment, pruneEnvironments, pullEnvironment, scratchDisk, type PullProgress } from "../../src/environments/index.js";
import { findProgram, runChild } from "../../src/base/child.js";
import { toPyroError } from "../../src/base/error.js";
import { takeLock, tryLock } from "../../src/base/lock.js";
import { makeFakeHost, makeModule, makeVmlinux, moduleFor, useTemporary } from "./fixtures.js";
import { Layout } from "./image-maker.js";
import { archive } from "./tar-maker.js";

// The guest program is built apart from this; here any bytes will do, and they change.
const guest = vi.hoisted(() => ({ path: "" }));
vi.mock("../../src/base/paths.js", async (original) => {
  const real = await original<typeof import("../../src/base/paths.js")>();
  return { ...real, nativeProgram: (name: "pyro-guest" | "pyro-keeper") => (name === "pyro-guest" ? guest.path : real.nativeProgram(name)) };
});

const disk = vi.hoisted(() => ({ freeMib: undefined as number | undefined }));
vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  return { ...real, statfs: async (path: string) => (disk.freeMib === undefined ? real.statfs(path) : { bsize: 4096, bavail: disk.freeMib * 256 }) };
});

const temporary = useTemporary();
const before = { ...process.env };
let host: Awaited<ReturnType<typeof makeFakeHost>>;
let cache = "";
let count = 0;

beforeAll(async () => {
  await mkdir(join(temporary.path(), "host"));
  host = await makeFakeHost(join(temporary.path(), "host"));
  process.env["PATH"] = `${host.bin}:${before["PATH"]}`;
});

beforeEach(async () => {
  cache = join(temporary.path(), `cache${++count}`);
  process.env["XDG_CACHE_HOME"] = cache;
  for (const name of ["PYRO_KERNEL_DIR", "PYRO_DEBIAN_MIRROR", "PYRO_DEBIAN_SECURITY_MIRROR", "SOURCE_DATE_EPOCH", "http_proxy", "https_proxy"]) delete process.env[name];
  guest.path = join(temporary.path(), `guest${count}`);
  await writeFile(guest.path, "the guest program");
  for (const name of ["calls", "fail", "hang"]) await rm(join(temporary.path(), "host", name), { force: true });
});

afterAll(() => {
  process.env = before;
});

const name = "debian:12-base";
const file = (...path: string[]) => join(cache, "pyro-mcp", ...path);

test("nothing is installed at first; a pull installs it; open says where it is", async () => {
  expect(await listEnvironments()).toEqual([
    { name: "debian:12", version: "12", description: "Debian 12 with Git and what agents reach for first", distribution: "debian", platform: "linux/amd64", installed: false },
    { name: "debian:12-base", version: "12", description: "Debian 12 with a minimal shell and core tools", distribution: "debian", platform: "linux/amd64", installed: false },
    { name: "debian:12-build", version: "12", description: "Debian 12 with Git and a C and C++ compiler toolchain", distribution: "debian", platform: "linux/amd64", installed: false },
  ]);
  expect(await openEnvironment(name)).toBeUndefined();
  const told: PullProgress[] = [];
  const pulled = await pullEnvironment(name, { onProgress: (progress) => told.push(progress) });
  expect(pulled).toMatchObject({ name, installed: true, source: "debian:bookworm from http://deb.debian.org/debian" });
  expect([...new Set(told.map((each) => each.phase))]).toEqual(["verify", "kernel", "packages", "image"]);
  expect(told.every((each) => each.environment === name && each.message !== "")).toBe(true);
  const opened = await openEnvironment(name);
  expect(opened).toMatchObject({ name, digest: pulled.digest, kernelVersion: "6.1.0-1-test", rootDisk: join(opened!.directory, "root.erofs"), kernel: join(opened!.directory, "vmlinux"), initramfs: join(opened!.directory, "initramfs") });
  expect(await readFile(opened!.kernel)).toEqual(makeVmlinux());
  expect((await stat(opened!.directory)).mode & 0o777).toBe(0o700);
  expect((await stat(opened!.kernel)).nlink).toBe(2); // one file, in the kernel store and here
  expect((await stat(opened!.lockFile)).isFile()).toBe(true);
  const details = await inspectEnvironment(name);
  expect(details.packages).toEqual([{ name: "apt", version: "2.6.1" }, { name: "bash", version: "5.2.15-2+b7" }]);
  expect(details.files?.map((each) => each.name)).toEqual(["root.erofs", "vmlinux", "initramfs"]);
  expect(details.sizeBytes).toBe(details.files?.reduce((sum, each) => sum + each.sizeBytes, 0));
  expect((await listEnvironments()).map((each) => each.installed)).toEqual([false, true, false]);
  expect(await readdir(file("tmp"))).toEqual([]);
});

test("the initramfs has the modules in the order in which they go in", async ({ skip }) => {
  skip(!(await findProgram("cpio").then(() => true, () => false)), "cpio is not installed");
  await pullEnvironment(name);
  const { stdout } = await runChild("cpio", ["-t", "--quiet"], { input: await readFile((await openEnvironment(name))!.initramfs) });
  expect(stdout.toString().split("\n").filter((each) => each.endsWith(".ko"))).toEqual([
    "modules/00-virtio_ring.ko",
    "modules/01-virtio.ko",
    "modules/02-virtio_mmio.ko",
    "modules/03-virtio_blk.ko",
    "modules/04-virtio_console.ko",
    "modules/05-failover.ko",
    "modules/06-net_failover.ko",
    "modules/07-virtio_net.ko",
    "modules/08-libcrc32c.ko",
    "modules/09-erofs.ko",
    "modules/10-virtio_balloon.ko",
  ]);
});

test("without the space for it: said before anything is fetched", async () => {
  disk.freeMib = 799;
  try {
    await expect(pullEnvironment(name)).rejects.toMatchObject({
      code: "DISK_FULL",
      message: `Making debian:12-base takes about 800 MiB in ${file()}, and 799 MiB are free there.`,
      hint: "Free some space (`pyro env prune` removes what is no longer used), or set XDG_CACHE_HOME to a directory on a larger disk.",
    });
    expect(await host.calls()).toEqual([]);
    disk.freeMib = 800;
    expect((await pullEnvironment(name)).installed).toBe(true);
    disk.freeMib = 0;
    expect((await pullEnvironment(name)).installed).toBe(true); // what is there needs none
  } finally {
    disk.freeMib = undefined;
  }
});

test("without the space for an image's kernel: said before apt is asked", async () => {
  const layout = new Layout(join(temporary.path(), "layout"));
  await layout.image([archive({ name: "etc/", type: "5" })], { tag: "one" });
  const source = await layout.finish();
  const calls = (await host.calls()).length;
  disk.freeMib = 199;
  try {
    await expect(pullEnvironment("mine", { source })).rejects.toMatchObject({ code: "DISK_FULL", message: `Making a kernel takes about 200 MiB in ${file()}, and 199 MiB are free there.` });
    expect(await host.calls()).toHaveLength(calls);
  } finally {
    disk.freeMib = undefined;
  }
});

test("the space that an image takes: what is kept of it is not counted again", async () => {
  const layout = new Layout(join(temporary.path(), "shared"));
  const large = archive({ name: "large", data: Buffer.alloc(3 << 20, "noise") });
  await layout.image([large], { tag: "one" });
  await layout.image([large, archive({ name: "small", data: "x" })], { tag: "two" });
  const source = await layout.finish();
  await pullEnvironment("one", { source: `${source}:one` });
  try {
    disk.freeMib = 3;
    await expect(pullEnvironment("two", { source: `${source}:two` })).rejects.toMatchObject({ code: "DISK_FULL", message: expect.stringContaining(":two takes about 4 MiB in ") });
    disk.freeMib = 4;
    expect((await pullEnvironment("two", { source: `${source}:two` })).installed).toBe(true);
  } finally {
    disk.freeMib = undefined;
  }
});

test("a listener that throws does not disturb the pull", async () => {
  const pulled = await pullEnvironment(name, { onProgress: () => { throw new Error("the listener's own"); } });
  expect(pulled.installed).toBe(true);
});

test("without mmdebstrap: said before anything is fetched, with what brings it", async () => {
  const bin = join(temporary.path(), "host/without");
  await mkdir(bin);
  for (const each of ["apt-get", "apt-config", "apt-cache", "unshare", "newuidmap"]) await copyFile(join(host.bin, each), join(bin, each));
  for (const each of ["dpkg-deb", "lz4", "sh", "rm"]) await symlink(await findProgram(each), join(bin, each));
  const path = process.env["PATH"];
  process.env["PATH"] = bin;
  try {
    await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "HOST_MISSING", message: "mmdebstrap is not installed.", hint: "sudo apt-get install -y mmdebstrap" });
  } finally {
    process.env["PATH"] = path;
  }
  expect(await host.calls()).toEqual([]);
  expect(await readdir(file("tmp"))).toEqual([]);
});

test("a second pull fetches nothing; --force makes the same again", async () => {
  const first = await pullEnvironment(name);
  const calls = await host.calls();
  expect(await pullEnvironment(name)).toEqual(first);
  expect(await host.calls()).toEqual(calls);
  expect(await pullEnvironment(name, { force: true })).toEqual(first);
  expect((await host.calls()).filter((each) => each.startsWith("mmdebstrap")).length).toBe(2);
  expect((await host.calls()).filter((each) => each.includes("download")).length).toBe(1); // the kernel is in the store
});

test("the mirrors and the date come from the settings", async () => {
  process.env["PYRO_DEBIAN_MIRROR"] = "http://user:secret@mirror.invalid/debian";
  process.env["PYRO_DEBIAN_SECURITY_MIRROR"] = "http://mirror.invalid/security";
  expect((await pullEnvironment(name)).source).toBe("debian:bookworm from http://mirror.invalid/debian");
  expect(await readFile(join(temporary.path(), "host/sources.list"), "utf8")).toBe(
    [
      "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://user:secret@mirror.invalid/debian bookworm main",
      "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://user:secret@mirror.invalid/debian bookworm-updates main",
      "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.invalid/security bookworm-security main",
      "",
    ].join("\n"),
  );
  const image = await readFile((await openEnvironment(name))!.rootDisk, "latin1");
  expect(image.includes("http://mirror.invalid/debian bookworm-updates main")).toBe(true);
  expect(image.includes("secret")).toBe(false);
  await writeFile(join(temporary.path(), "host/fail"), "E: Failed to fetch http://user:secret@mirror.invalid/debian/x\n");
  const error = await pullEnvironment(name, { force: true }).catch((each: unknown) => each);
  expect(error).toMatchObject({ code: "REGISTRY", message: expect.stringContaining("http://mirror.invalid/debian/x") });
  expect(JSON.stringify(error)).not.toContain("secret");
});

test("the proxy that the host's apt uses is used, unless the user set one", async () => {
  const used = () => readFile(join(temporary.path(), "host/proxies"), "utf8");
  await pullEnvironment(name);
  expect(await used()).toBe("http://proxy.invalid:3128 \n");
  process.env["http_proxy"] = "http://mine.invalid";
  await pullEnvironment(name, { force: true });
  expect(await used()).toBe("http://mine.invalid \n");
  delete process.env["http_proxy"];
});

describe("names", () => {
  test.each([
    ["debian:12-bsae", "NOT_FOUND", "Did you mean debian:12-base or debian:12-build?"],
    ["alpine", "NOT_FOUND", "Available are debian:12, debian:12-base, debian:12-build, and images: docker.io/library/NAME:TAG"],
    ["", "NOT_FOUND", "Available are"],
    ["docker.io/Library/python:3.12", "INVALID_ARGUMENT", "An image is REGISTRY/NAME:TAG"],
    ["python@sha256:00", "INVALID_ARGUMENT", "An image is REGISTRY/NAME:TAG"],
  ])("%s", async (unknown, code, hint) => {
    for (const verb of [pullEnvironment, openEnvironment, inspectEnvironment]) {
      await expect(verb(unknown)).rejects.toMatchObject({ code, hint: expect.stringContaining(hint) });
    }
  });
});

describe("damage is found by open, list and inspect, and mended by pull", () => {
  const damages: [string, (directory: string) => Promise<void>, boolean][] = [
    ["root.erofs is cut short", async (directory) => truncate(join(directory, "root.erofs"), 4096), true],
    ["root.erofs has one other byte", async (directory) => overwrite(join(directory, "root.erofs"), 2000), true],
    ["root.erofs is missing", async (directory) => rm(join(directory, "root.erofs")), true],
    ["root.erofs is a directory", async (directory) => (await rm(join(directory, "root.erofs")), mkdir(join(directory, "root.erofs"))), true],
    ["vmlinux is missing", async (directory) => rm(join(directory, "vmlinux")), false],
    ["vmlinux has one other byte, in the kernel store too", async (directory) => overwrite(join(directory, "vmlinux"), 5000), false],
    ["initramfs is empty", async (directory) => truncate(join(directory, "initramfs"), 0), false],
    ["initramfs has one other byte", async (directory) => overwrite(join(directory, "initramfs"), 500), false],
    ["the manifest is missing", async (directory) => rm(join(directory, "manifest.json")), true],
    ["the manifest is half there", async (directory) => truncate(join(directory, "manifest.json"), 100), true],
    ["the manifest is absurd", async (directory) => writeFile(join(directory, "manifest.json"), '{"schema_version":1e999}'), true],
    ["the manifest is huge", async (directory) => truncate(join(directory, "manifest.json"), 9 << 20), true],
    ["the manifest is another's", async (directory) => writeFile(join(directory, "manifest.json"), (await readFile(join(directory, "manifest.json"), "utf8")).replace(/"digest": "sha256:./, '"digest": "sha256:0')), true],
    ["the directory is missing", async (directory) => rm(directory, { recursive: true }), true],
    ["the directory is a file", async (directory) => (await rm(directory, { recursive: true }), writeFile(directory, "")), true],
    ["the directory is a link to itself", async (directory) => (await rm(directory, { recursive: true }), symlink(directory, directory)), true],
    ["the manifest is a link to itself", async (directory) => (await rm(join(directory, "manifest.json")), symlink("manifest.json", join(directory, "manifest.json"))), true],
    ["the manifest is a FIFO", async (directory) => fifo(join(directory, "manifest.json")), true],
    ["root.erofs is a FIFO", async (directory) => fifo(join(directory, "root.erofs")), true],
    ["initramfs is a FIFO", async (directory) => fifo(join(directory, "initramfs")), false],
    ["vmlinux is a device", async (directory) => (await rm(join(directory, "vmlinux")), symlink("/dev/zero", join(directory, "vmlinux"))), false],
    ["the lock is missing", async (directory) => rm(join(directory, "lock")), false],
    ["the lock is a FIFO", async (directory) => fifo(join(directory, "lock")), false],
    ["the name's record is a FIFO", async () => fifo(file("environments/names/debian%3A12-base.json")), true],
    ["the name's record is a link to itself", async () => (await rm(file("environments/names/debian%3A12-base.json")), symlink("debian%3A12-base.json", file("environments/names/debian%3A12-base.json"))), true],
    ["the name's record is damaged", async () => writeFile(file("environments/names/debian%3A12-base.json"), "{"), true],
    ["the name stands for something else", async () => writeFile(file("environments/names/debian%3A12-base.json"), '{"schema_version":1,"digest":"../../.."}'), true],
  ];

  test.each(damages)("%s", async (_, damage, makesRootAnew) => {
    const pulled = await pullEnvironment(name);
    const { directory } = (await openEnvironment(name))!;
    await damage(directory);
    await expect(openEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", hint: "pyro env pull debian:12-base" });
    expect((await listEnvironments())[1]!.installed).toBe(false);
    expect(await inspectEnvironment(name)).toMatchObject({ installed: false, damage: expect.any(String) });
    const again = await pullEnvironment(name);
    expect(again.digest).toBe(pulled.digest);
    expect((await openEnvironment(name))!.digest).toBe(pulled.digest);
    expect((await host.calls()).filter((each) => each.startsWith("mmdebstrap")).length).toBe(makesRootAnew ? 2 : 1);
    expect(await readdir(file("tmp"))).toEqual([]);
  });

  test.each([
    ["manifest.json is not a regular file.", async (directory: string) => fifo(join(directory, "manifest.json"))],
    ["manifest.json can't be read: ELOOP.", async (directory: string) => (await rm(join(directory, "manifest.json")), symlink("manifest.json", join(directory, "manifest.json")))],
    ["is damaged: its directory can't be read.", async (directory: string) => (await rm(directory, { recursive: true }), writeFile(directory, ""))],
    ["is damaged: its lock is missing.", async (directory: string) => rm(join(directory, "lock"))],
  ])("and inspect says which: %s", async (words, damage) => {
    await pullEnvironment(name);
    await damage((await openEnvironment(name))!.directory);
    expect((await inspectEnvironment(name)).damage).toContain(words);
  });

  test("a damaged record of what was verified only costs reading", async () => {
    await pullEnvironment(name);
    const { directory } = (await openEnvironment(name))!;
    for (const damage of [(path: string) => writeFile(path, "[]"), fifo, async (path: string) => (await rm(path), symlink(path, path))]) {
      await damage(join(directory, "verified.json"));
      expect(await openEnvironment(name)).toMatchObject({ name });
      expect(JSON.parse(await readFile(join(directory, "verified.json"), "utf8"))).toHaveProperty(["root.erofs", "stamp", "inode"]);
    }
  });
});

test("a newer guest program: open packs the initramfs anew and the environment stays the same", async () => {
  const pulled = await pullEnvironment(name);
  const first = (await openEnvironment(name))!;
  await writeFile(guest.path, "a newer guest program");
  const [second, third] = await Promise.all([openEnvironment(name), openEnvironment(name)]);
  expect(second!.digest).toBe(pulled.digest);
  expect(second!.initramfsDigest).not.toBe(first.initramfsDigest);
  expect(third).toEqual(second);
  expect((await readFile(second!.initramfs)).includes("a newer guest program")).toBe(true);
  expect(await openEnvironment(name)).toEqual(second);
  await writeFile(guest.path, "one more");
  await rm(file("kernels"), { recursive: true });
  await expect(openEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: "The kernel modules of debian:12-base are no longer there." });
  await pullEnvironment(name);
  expect((await readFile((await openEnvironment(name))!.initramfs)).includes("one more")).toBe(true);
});

test("a cache that can be none is DENIED, with the next step", async () => {
  process.env["XDG_CACHE_HOME"] = "/dev/null";
  const wanted = { code: "DENIED", hint: "Set XDG_CACHE_HOME and XDG_STATE_HOME to directories that you can write to." };
  for (const verb of [() => pullEnvironment(name), () => scratchDisk(64), () => pruneEnvironments()]) await expect(verb()).rejects.toMatchObject(wanted);
  for (const verb of [() => openEnvironment(name), () => listEnvironments()]) expect(toPyroError(await verb().catch((error: unknown) => error))).toMatchObject(wanted);
  process.env["XDG_CACHE_HOME"] = "/proc";
  expect(await openEnvironment(name)).toBeUndefined();
  for (const verb of [() => pullEnvironment(name), () => scratchDisk(64), () => pruneEnvironments()]) await expect(verb()).rejects.toMatchObject(wanted);
});

test("PYRO_KERNEL_DIR: its kernel is used while it is set, and Debian's again after", async () => {
  const debian = await pullEnvironment(name);
  const own = join(temporary.path(), "own-kernel");
  await mkdir(join(own, "modules"), { recursive: true });
  await writeFile(join(own, "vmlinux"), makeVmlinux(9));
  await writeFile(join(own, "modules/01-virtio_mmio.ko"), moduleFor("virtio", "6.9-own"));
  await writeFile(join(own, "modules/virtio.ko"), moduleFor("", "6.9-own"));
  process.env["PYRO_KERNEL_DIR"] = own;
  expect(await openEnvironment(name)).toBeUndefined();
  const pulled = await pullEnvironment(name);
  expect(pulled.digest).not.toBe(debian.digest);
  expect(await openEnvironment(name)).toMatchObject({ digest: pulled.digest, kernelVersion: "6.9-own" });
  expect((await inspectEnvironment(name)).kernel).toMatchObject({ version: "6.9-own", source: expect.stringContaining(`directory:${own}#`) });
  expect((await host.calls()).filter((each) => each.startsWith("mmdebstrap")).length).toBe(1); // the root disk is kept
  await writeFile(join(own, "vmlinux"), makeVmlinux(10));
  expect(await openEnvironment(name)).toBeUndefined();
  expect((await pullEnvironment(name)).digest).not.toBe(pulled.digest);
  delete process.env["PYRO_KERNEL_DIR"];
  expect(await openEnvironment(name)).toBeUndefined();
  expect((await pullEnvironment(name)).digest).toBe(debian.digest);
  expect((await pruneEnvironments()).removed.map((each) => each.split(" ")[0])).toEqual(["environment", "environment", "kernel", "kernel"]);

  process.env["PYRO_KERNEL_DIR"] = own;
  const hint = "PYRO_KERNEL_DIR names a directory with vmlinux (or vmlinuz) and modules/ with *.ko files.";
  for (const [path, content, message] of [
    ["modules/virtio.ko", makeModule(["vermagic=6.9-own x", "depends=virtio_mmio"]), "in a circle"],
    ["modules/virtio.ko", moduleFor("", "6.8"), "are for different kernels: 6.8, 6.9-own"],
    ["vmlinux", Buffer.from("no kernel"), "is no 64-bit ELF kernel"],
  ] as const) {
    await writeFile(join(own, path), content);
    await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining(message), hint });
  }
  await expect(pullEnvironment(name)).rejects.toMatchObject({ message: `${own}/vmlinux is no 64-bit ELF kernel.` });
  await fifo(join(own, "vmlinux"));
  await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${own}/vmlinux is not a regular file.`, hint });
  await rm(join(own, "vmlinux"));
  await expect(pullEnvironment(name)).rejects.toMatchObject({ message: `There is neither vmlinux nor vmlinuz in ${own}.`, hint });
  await fifo(join(own, "vmlinuz"));
  await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${own}/vmlinuz is not a regular file.`, hint });
  await rm(join(own, "vmlinuz"));
  await symlink("nothing", join(own, "vmlinuz"));
  await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `The kernel directory ${own} can't be read: ENOENT at ${own}/vmlinuz.`, hint });
  await rm(join(own, "vmlinuz"));
  await writeFile(join(own, "vmlinux"), makeVmlinux(9));
  await fifo(join(own, "modules/virtio.ko"));
  await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${own}/modules/virtio.ko is not a regular file.`, hint });
  await rm(join(own, "modules"), { recursive: true });
  await writeFile(join(own, "modules"), "");
  await expect(openEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `The kernel directory ${own} can't be read: ENOTDIR at ${own}/modules.`, hint });
  process.env["PYRO_KERNEL_DIR"] = "/nonexistent";
  await expect(pullEnvironment(name)).rejects.toMatchObject({ message: "The kernel directory /nonexistent can't be read: ENOENT.", hint });
});

describe("what fails leaves nothing", () => {
  test.each([
    ["E: Unable to fetch some archives: Could not resolve 'deb.debian.org'", "REGISTRY", "can be reached from here"],
    ["W: GPG error: http://m bookworm InRelease: NO_PUBKEY 0E98404D386FA1D9", "REGISTRY", "does not carry Debian's signature"],
    ["dpkg: error: failed to write: No space left on device", "DISK_FULL", "Free some space"],
    ["E: newuidmap 1 0 100000 1 failed: Operation not permitted", "DENIED", "usermod --add-subuids"],
  ])("%s", async (stderr, code, hint) => {
    await writeFile(join(temporary.path(), "host/fail"), `I: something\n${stderr}\n`);
    await expect(pullEnvironment(name)).rejects.toMatchObject({ code, message: expect.stringContaining(stderr), hint: expect.stringContaining(hint) });
    expect(await openEnvironment(name)).toBeUndefined();
    expect(await readdir(file("tmp"))).toEqual([]);
  });

  test("cancelled in the middle", async () => {
    await writeFile(join(temporary.path(), "host/hang"), "");
    const abort = new AbortController();
    const pull = pullEnvironment(name, { signal: abort.signal, onProgress: ({ message, phase }) => phase === "packages" && message === "fetching package lists" && setTimeout(() => abort.abort(), 50) });
    await expect(pull).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await openEnvironment(name)).toBeUndefined();
    expect(await readdir(file("tmp"))).toEqual([]);
    await expect(pullEnvironment(name, { signal: abort.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  });

  test("an archive that breaks off", async () => {
    await writeFile(join(host.bin, "mmdebstrap.real"), await readFile(join(host.bin, "mmdebstrap")));
    await chmod(join(host.bin, "mmdebstrap.real"), 0o755);
    await writeFile(join(host.bin, "mmdebstrap"), `#!/bin/sh\n${join(host.bin, "mmdebstrap.real")} "$@" | head -c 3000\n`);
    try {
      await expect(pullEnvironment(name)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
      expect(await openEnvironment(name)).toBeUndefined();
    } finally {
      await writeFile(join(host.bin, "mmdebstrap"), await readFile(join(host.bin, "mmdebstrap.real")));
    }
  });

});

test("a cache that can't be written to", async () => {
  process.env["XDG_CACHE_HOME"] = "/sys/nowhere";
  for (const verb of [() => pullEnvironment(name), () => pruneEnvironments(), () => scratchDisk(64)]) {
    await expect(verb()).rejects.toMatchObject({ code: "DENIED", hint: "Set XDG_CACHE_HOME and XDG_STATE_HOME to directories that you can write to." });
  }
  expect(await openEnvironment(name)).toBeUndefined();
});

describe("two at once", () => {
  test("of one name: the second waits, says so, and fetches nothing", async () => {
    const lock = await takeLock(file("environments/locks/debian%3A12-base"));
    const told: string[] = [];
    const first = pullEnvironment(name, { onProgress: ({ phase, message }) => told.push(`${phase}: ${message}`) });
    while (told.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(told[0]).toBe("waiting: another process is pulling debian:12-base");
    await lock.release();
    const [a, b] = await Promise.all([first, pullEnvironment(name)]);
    expect(a).toEqual(b);
    expect((await host.calls()).filter((each) => each.startsWith("mmdebstrap")).length).toBe(1);
  });

  test("of two names: one kernel is fetched", async () => {
    await Promise.all([pullEnvironment(name), pullEnvironment("debian:12")]);
    expect((await host.calls()).filter((each) => each.includes("download")).length).toBe(1);
    expect((await listEnvironments()).map((each) => each.installed)).toEqual([true, true, false]);
  });
});

describe("prune", () => {
  test("leaves what is whole and named", async () => {
    const pulled = await pullEnvironment(name);
    expect(await pruneEnvironments()).toEqual({ removed: [], reclaimedBytes: 0 });
    expect((await openEnvironment(name))!.digest).toBe(pulled.digest);
  });

  test("removes what no name stands for, its kernel, and what dead processes left", async () => {
    const { digest } = await pullEnvironment(name);
    await rm(file("environments/names/debian%3A12-base.json"));
    await mkdir(file("tmp/0123456789abcdef/deep"), { recursive: true });
    await writeFile(file("tmp/0123456789abcdef/deep/file"), Buffer.alloc(100_000));
    const { removed, reclaimedBytes } = await pruneEnvironments();
    expect(removed).toEqual(["temporary files", `environment ${digest}`, "kernel 6.1.0-1-test_6.1.1-1"]);
    expect(reclaimedBytes).toBeGreaterThan(100_000);
    expect((await readdir(file("environments"))).sort()).toEqual(["locks", "names"]);
    expect(await readdir(file("tmp"))).toEqual([]);
  });

  test("removes a damaged environment and its name", async () => {
    const { digest } = await pullEnvironment(name);
    await truncate(join((await openEnvironment(name))!.directory, "root.erofs"), 0);
    expect((await pruneEnvironments()).removed).toEqual([`environment ${digest}`, "kernel 6.1.0-1-test_6.1.1-1"]);
    expect(await openEnvironment(name)).toBeUndefined();
  });

  test("leaves one that a VM runs from, also when no name stands for it or it is damaged", async () => {
    await pullEnvironment(name);
    const { lockFile, directory } = (await openEnvironment(name))!;
    const vm = await takeLock(lockFile, { shared: true });
    await rm(file("environments/names/debian%3A12-base.json"));
    expect((await pruneEnvironments()).removed).toEqual([]);
    await truncate(join(directory, "initramfs"), 0);
    expect((await pruneEnvironments()).removed.filter((each) => each.startsWith("environment"))).toEqual([]);
    await vm.release();
    expect((await pruneEnvironments()).removed.filter((each) => each.startsWith("environment")).length).toBe(1);
  });

  test("removes locks that no directory belongs to", async () => {
    await mkdir(file("tmp"), { recursive: true });
    await writeFile(file("tmp/0123456789abcdef.lock"), "");
    expect((await pruneEnvironments()).removed).toEqual([]);
    expect(await readdir(file("tmp"))).toEqual([]);
  });

  test("leaves one that is held from its opening on", async () => {
    await pullEnvironment(name);
    const opened = (await openEnvironment(name))!;
    const held = await holdEnvironment(opened);
    const alsoHeld = await holdEnvironment(opened);
    await rm(file("environments/names/debian%3A12-base.json"));
    await held.release();
    expect((await pruneEnvironments()).removed).toEqual([]);
    await alsoHeld.release();
    expect((await pruneEnvironments()).removed[0]).toBe(`environment ${opened.digest}`);
    const gone = { code: "ENVIRONMENT_INVALID", message: "The environment debian:12-base was removed meanwhile.", hint: "pyro env pull debian:12-base" };
    await expect(holdEnvironment(opened)).rejects.toMatchObject(gone);
    expect((await readdir(file("environments"))).sort()).toEqual(["locks", "names"]);
  });

  test("that is under way is waited for by whoever wants to hold the environment, and found out", async () => {
    await pullEnvironment(name);
    const opened = (await openEnvironment(name))!;
    const pruning = await takeLock(opened.lockFile);
    const waits: string[] = [];
    const held = holdEnvironment(opened, { onWait: (what) => waits.push(what) });
    const refused = expect(held).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: "The environment debian:12-base was removed meanwhile." });
    while (waits.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await rename(opened.directory, join(cache, "aside"));
    await pruning.release();
    await refused;
    expect(waits).toEqual(["another process is removing environments"]);
  });

  test("leaves the temporary directory of a living process", async () => {
    const lock = await takeLock(file("tmp/0123456789abcdef.lock"));
    await mkdir(file("tmp/0123456789abcdef"));
    expect((await pruneEnvironments()).removed).toEqual([]);
    expect(await readdir(file("tmp"))).toEqual(["0123456789abcdef", "0123456789abcdef.lock"]);
    await lock.release();
  });
});

describe("whoever waits for another process hears of it and can be stopped", () => {
  /** Starts `verb` while `lockFile` is held by somebody else, and stops it. What it said it waits for. */
  async function stopped(lockFile: string, verb: (options: { signal: AbortSignal; onWait: (what: string) => void }) => Promise<unknown>): Promise<string[]> {
    const held = await takeLock(lockFile);
    const stop = new AbortController();
    const waits: string[] = [];
    const result = verb({ signal: stop.signal, onWait: (what) => (waits.push(what), stop.abort()) });
    await expect(result).rejects.toMatchObject({ code: "CANCELLED" });
    await held.release();
    return waits;
  }

  test("prune, for a pull", async () => {
    await pullEnvironment(name);
    expect(await stopped(file("environments/locks/store"), pruneEnvironments)).toEqual(["another process is pulling an environment"]);
    expect((await pruneEnvironments()).removed).toEqual([]);
  });

  test("open, that has a newer guest program", async () => {
    await pullEnvironment(name);
    await writeFile(guest.path, "a newer guest program");
    expect(await stopped(file("environments/locks/install"), (options) => openEnvironment(name, options))).toEqual(["another process is at work on the environments"]);
    expect(await stopped(file("environments/locks/store"), (options) => openEnvironment(name, options))).toEqual(["another process is at work on the environments"]);
    expect(await openEnvironment(name)).toMatchObject({ name });
  });

  test("the scratch disk, for its maker", async () => {
    const held = await takeLock(file("scratch/lock"));
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 50);
    await expect(scratchDisk(64, { signal: stop.signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await held.release();
  });

  test("what begins after the end of it does nothing", async () => {
    const signal = AbortSignal.abort();
    for (const verb of [() => listEnvironments({ signal }), () => inspectEnvironment(name, { signal }), () => openEnvironment(name, { signal }), () => pruneEnvironments({ signal }), () => scratchDisk(64, { signal })]) {
      await expect(verb()).rejects.toMatchObject({ code: "CANCELLED" });
    }
    expect(await readdir(cache).catch(() => [])).toEqual([]);
  });
});

describe("scratch disk", () => {
  test("made once, sparse, read-only, empty; the same bytes every time", async () => {
    const path = await scratchDisk(64);
    expect(path).toBe(file("scratch/64.ext4"));
    const found = await stat(path);
    expect([found.size, found.mode & 0o777]).toEqual([67_108_864, 0o400]);
    expect(found.blocks * 512).toBeLessThan(2_000_000);
    const content = await readFile(path);
    expect(content.readUInt16LE(1024 + 56)).toBe(0xef53); // ext4's magic number
    expect(content.readUInt32LE(1024 + 92) & 4).toBe(0); // no journal
    expect(await Promise.all([scratchDisk(64), scratchDisk(64)])).toEqual([path, path]);
    expect((await stat(path)).ino).toBe(found.ino);
    await rm(path);
    expect((await readFile(await scratchDisk(64))).equals(content)).toBe(true);
    expect(await tryLock(file("scratch/lock"))).toBeDefined();
  });

  const damages: [string, (path: string) => Promise<void>][] = [
    ["cut short", async (path) => truncate(path, 1 << 20)],
    ["nothing but zeros", async (path) => (await truncate(path, 0), truncate(path, 67_108_864))],
    ["one other byte", async (path) => overwrite(path, 1024 + 56)],
    ["gone", async (path) => rm(path)],
    ["a directory", async (path) => (await rm(path), mkdir(path))],
    ["without its record", async () => rm(file("scratch/64.json"))],
    ["with half a record", async () => truncate(file("scratch/64.json"), 20)],
  ];
  test.each(damages)("%s: made anew", async (_, damage) => {
    const path = await scratchDisk(64);
    const content = await readFile(path);
    await damage(path);
    expect(await scratchDisk(64)).toBe(path);
    expect((await readFile(path)).equals(content)).toBe(true);
    expect((await readdir(file("scratch"))).sort()).toEqual(["64.ext4", "64.json", "lock"]);
    const { ino } = await stat(path);
    await scratchDisk(64);
    expect((await stat(path)).ino).toBe(ino);
  });

  test.each([0, 15, 1.5, NaN, 1 << 30])("%s MiB are refused", async (size) => {
    await expect(scratchDisk(size)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

/** Puts a FIFO, which nobody ever writes to, in a file's place. */
async function fifo(path: string): Promise<void> {
  await rm(path, { force: true });
  expect((await runChild("mkfifo", [path])).code).toBe(0);
}

async function overwrite(path: string, at: number): Promise<void> {
  const handle = await open(path, "r+");
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, at);
  await handle.write(Buffer.from([buffer[0]! ^ 0xff]), 0, 1, at);
  await handle.close();
}
