import { existsSync, readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runChild } from "../../src/base/child.js";
import { crc32c } from "../../src/environments/crc32c.js";
import { parseAcl } from "../../src/environments/acl.js";
import { BlockFile } from "../../src/environments/block-file.js";
import { SparseWriter } from "../../src/environments/erofs-sparse.js";
import { ErofsImage, writeErofs } from "../../src/environments/erofs.js";
import { readTar } from "../../src/environments/tar.js";
import { make, makeAndRead, useDirectory } from "./erofs-check.js";
import { readErofs } from "./erofs-reader.js";
import { archive, member, stream, type Member } from "./tar-maker.js";

const directory = useDirectory();

async function image(...members: (Member | Buffer)[]) {
  return makeAndRead(directory.newName(), archive(...members));
}

async function refusal(...members: Member[]): Promise<string> {
  const path = directory.newName();
  const error = await make(path, archive(...members)).then(() => undefined, (reason: { code: string; message: string }) => reason);
  expect(error?.code).toBe("ENVIRONMENT_INVALID");
  expect(existsSync(path)).toBe(false);
  return error!.message;
}

test("CRC-32C of the RFC 3720 test vectors", () => {
  expect((crc32c(Buffer.alloc(32)) ^ 0xffffffff) >>> 0).toBe(0x8a9136aa);
  expect((crc32c(Buffer.alloc(32, 0xff)) ^ 0xffffffff) >>> 0).toBe(0x62a8ab43);
});

test("an empty archive is an empty root", async () => {
  const found = await image();
  expect([...found.keys()]).toEqual([""]);
  expect(found.get("")).toMatchObject({ type: "directory", mode: 0o755, uid: 0, gid: 0, seconds: 0, links: 2, nid: 36 });
});

test("every type, with all that belongs to it", async () => {
  const found = await image(
    { name: "./", type: "5", mode: 0o750, uid: 1, gid: 2, mtime: 99 },
    { name: "./bin/su", mode: 0o4755, uid: 70_000, gid: 80_000, mtime: 1_700_000_000, data: "su", pax: { mtime: "1700000000.987654321" } },
    { name: "tmp/", type: "5", mode: 0o1777 },
    { name: "/dev/tty", type: "3", mode: 0o620, device: [4, 300] },
    { name: "dev/sda", type: "4", device: [0xfff, 0xfffff], mode: 0o660 },
    { name: "run/pipe", type: "6", mode: 0o600 },
    { name: "lib", type: "2", mode: 0o777, link: "usr/lib" },
    { name: "old", pax: { mtime: "-1.5" } },
    { name: "empty" },
  );
  expect(found.get("")).toMatchObject({ mode: 0o750, uid: 1, gid: 2, seconds: 99, links: 6 });
  expect(found.get("bin")).toMatchObject({ type: "directory", mode: 0o755, uid: 0, gid: 0, seconds: 0, links: 2 });
  expect(found.get("bin/su")).toMatchObject({ type: "file", mode: 0o4755, uid: 70_000, gid: 80_000, seconds: 1_700_000_000, nanoseconds: 987_654_321, size: 2, links: 1, content: Buffer.from("su") });
  expect(found.get("tmp")).toMatchObject({ mode: 0o1777 });
  expect(found.get("dev/tty")).toMatchObject({ type: "character", mode: 0o620, device: [4, 300] });
  expect(found.get("dev/sda")).toMatchObject({ type: "block", device: [0xfff, 0xfffff] });
  expect(found.get("run/pipe")).toMatchObject({ type: "fifo", mode: 0o600 });
  expect(found.get("lib")).toMatchObject({ type: "symlink", target: "usr/lib" });
  expect(found.get("old")).toMatchObject({ seconds: -2, nanoseconds: 500_000_000 });
  expect(found.get("empty")).toMatchObject({ size: 0 });
});

test("contents of every size around the blocks", async () => {
  const sizes = [1, 4095, 4096, 4097, 8192, 100_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_500_000];
  const found = await image(...sizes.map((size) => ({ name: `f${size}`, data: Buffer.alloc(size, `${size},`) })));
  for (const size of sizes) expect(found.get(`f${size}`)!.sha256).toBe(createHash("sha256").update(Buffer.alloc(size, `${size},`)).digest("hex"));
});

test("hard links, also before their target, also to symlinks and devices", async () => {
  const found = await image(
    { name: "early", type: "1", link: "later" }, { name: "earlier", type: "1", link: "./early" }, { name: "later", data: "x" }, { name: "d/after", type: "1", link: "/later" },
    { name: "s", type: "2", link: "t" }, { name: "s2", type: "1", link: "s" }, { name: "later", type: "1", link: "later" },
  );
  const { nid } = found.get("later")!;
  for (const name of ["early", "earlier", "later", "d/after"]) expect(found.get(name)).toMatchObject({ nid, links: 4, size: 1 });
  expect(found.get("s2")).toMatchObject({ type: "symlink", nid: found.get("s")!.nid, links: 2 });
});

test("hard links that lead nowhere are refused", async () => {
  expect(await refusal({ name: "a", type: "1", link: "b" })).toBe('The archive can\'t become a root file system: the hard link "a" has no target: there is no "b".');
  expect(await refusal({ name: "a", type: "1", link: "b" }, { name: "b", type: "1", link: "a" })).toContain("leads to itself");
  expect(await refusal({ name: "d/", type: "5" }, { name: "a", type: "1", link: "d" })).toContain("is a directory");
  expect(await refusal({ name: "a", type: "1", link: "d" }, { name: "d/", type: "5" })).toContain("hard link to a directory");
  expect(await refusal({ name: "a", type: "1", link: "../b" })).toContain('".."');
});

test("later entries replace earlier ones", async () => {
  const found = await image(
    { name: "a", data: "one" }, { name: "b", type: "1", link: "a" }, { name: "a", data: "two" }, { name: "c", type: "1", link: "a" },
    { name: "dir/x" }, { name: "dir", data: "now a file" },
    { name: "file" }, { name: "file/", type: "5", mode: 0o700 }, { name: "file/in" },
    { name: "kept/x" }, { name: "kept/", type: "5", mode: 0o711 },
    { name: "link", type: "2", link: "a" }, { name: "link", type: "6" },
    { name: "pending", type: "1", link: "z" }, { name: "pending", data: "here" },
  );
  expect(found.get("b")).toMatchObject({ content: Buffer.from("one"), links: 1 });
  expect(found.get("a")).toMatchObject({ content: Buffer.from("two"), links: 2 });
  expect(found.get("c")!.nid).toBe(found.get("a")!.nid);
  expect(found.get("dir")).toMatchObject({ type: "file", size: 10 });
  expect(found.has("dir/x")).toBe(false);
  expect(found.get("file")).toMatchObject({ type: "directory", mode: 0o700 });
  expect(found.has("file/in")).toBe(true);
  expect(found.get("kept")).toMatchObject({ mode: 0o711 });
  expect(found.has("kept/x")).toBe(true);
  expect(found.get("link")!.type).toBe("fifo");
  expect(found.get("pending")).toMatchObject({ size: 4, links: 1 });
});

test("paths that can't be are refused", async () => {
  expect(await refusal({ name: "a/../b" })).toContain('"a/../b" has ".." in it');
  expect(await refusal({ name: ".." })).toContain('".."');
  expect(await refusal({ name: "a" }, { name: "a/b" })).toContain('"a/b" lies below "a", which is a file, not a directory');
  expect(await refusal({ name: "a", type: "2", link: "b" }, { name: "b", type: "2", link: "/a" }, { name: "a/c" })).toContain("more than 40 symbolic links (maxLinks)");
  expect(await refusal({ name: "./" , type: "2", link: "x" })).toContain("is the root, and no directory");
  expect(await refusal({ name: "x", pax: { path: "n".repeat(256) } })).toContain("maxNameBytes");
  expect(await refusal({ name: "a", type: "2", link: "x", pax: { linkpath: "l".repeat(4096) } })).toContain("4095");
  expect(await refusal({ name: "a", type: "3", device: [4096, 0] })).toContain("4096:0");
});

test("a path may lead through symbolic links, which never lead out of the tree", async () => {
  const found = await image(
    { name: "etc/x" },
    { name: "a", type: "2", link: "/etc" }, { name: "a/passwd" },
    { name: "b", type: "2", link: "../../../../etc" }, { name: "b/group" },
    { name: "c", type: "2", link: "d/../missing/./e" }, { name: "c/f" },
    { name: "g", type: "1", link: "a/passwd" },
  );
  expect([...found.keys()].sort()).toEqual(["", "a", "b", "c", "etc", "etc/group", "etc/passwd", "etc/x", "g", "missing", "missing/e", "missing/e/f"]);
  expect(found.get("g")!.nid).toBe(found.get("etc/passwd")!.nid);
});

test("names of any bytes, in the order of bytes", async () => {
  const names = [Buffer.from([0x21]), Buffer.from([0xff, 0xfe]), Buffer.from("-"), Buffer.from(".a"), Buffer.from("..."), Buffer.from([0x01]), Buffer.from("é"), Buffer.from("a\nb"), Buffer.from("n".repeat(255)), Buffer.from([0x80])];
  const found = await image(...names.map((name) => ({ name: "x", pax: { path: name } })));
  expect([...found.keys()].slice(1).sort()).toEqual(names.map((name) => name.toString("latin1")).sort());
});

test("directories of every shape, up to 100,000 names", async () => {
  const big = Array.from({ length: 100_000 }, (_, index) => ({ name: `big/${(index * 7919) % 100_000}-entry`, type: "6" }));
  const edges = Array.from({ length: 120 }, (_, count) => Array.from({ length: count }, (_, index) => ({ name: `edge${count}/${String(index).padStart(3 + (count % 50), "x")}`, type: "6" }))).flat();
  const found = await image(Buffer.concat([...big, ...edges].map(member)));
  expect(found.size).toBe(1 + 1 + 100_000 + 119 + 7140);
  expect(found.get("big/99999-entry")!.type).toBe("fifo");
});

test("deep paths", async () => {
  expect((await image({ name: "x", pax: { path: "d/".repeat(255) + "f" } })).size).toBe(257);
  // fsck.erofs recurses with its stack and dies of deeper ones; Linux does not.
  const path = directory.newName();
  await make(path, archive({ name: "x", pax: { path: "d/".repeat(2000) + "f" } }), { limits: { maxDepth: 2001 } });
  expect(readErofs(path).size).toBe(2002);
});

test("symlinks of every length that matters", async () => {
  const lengths = [1, 59, 60, 4000, 4032, 4033, 4095];
  const found = await image(...lengths.map((length) => ({ name: `s${length}`, type: "2", pax: { linkpath: "t".repeat(length) } })));
  for (const length of lengths) expect(found.get(`s${length}`)!.target).toBe("t".repeat(length));
});

test("extended attributes", async () => {
  const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");
  const found = await image(
    { name: "ping", data: "x", pax: { "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.empty": "", "SCHILY.xattr.trusted.t": Buffer.from([0, 10, 255]), "SCHILY.xattr.com.apple.x": "1" } },
    { name: "acl", pax: { "SCHILY.xattr.system.posix_acl_access": parseAcl("user::rw-,user:1000:r--,group::r--,mask::r--,other::---", "x") } },
    { name: "text/", type: "5", pax: { "SCHILY.acl.access": "user::rwx\nuser:joe:r-x:1234\ngroup::r-x\nmask:rwx\nother:r-x", "SCHILY.acl.default": "user::rwx,group::r-x,other::r-x" } },
    { name: "large", pax: { "SCHILY.xattr.user.v": Buffer.alloc(60_000, 7), "SCHILY.xattr.user.w": Buffer.alloc(65_535, 8) } },
    { name: "s", type: "2", link: "z".repeat(90), pax: { "SCHILY.xattr.trusted.big": Buffer.alloc(5000, 1) } },
    { name: "d/", type: "5", pax: { "SCHILY.xattr.user.d": Buffer.alloc(4000, 2) } },
    { name: "d/x" },
  );
  expect(found.get("ping")!.xattrs).toEqual({ "security.capability": capability.toString("hex"), "user.empty": "", "trusted.t": "000aff" });
  expect(found.get("acl")!.xattrs).toEqual({ "system.posix_acl_access": "0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff" });
  expect(found.get("text")!.xattrs).toEqual({
    "system.posix_acl_access": "0200000001000700ffffffff02000500d204000004000500ffffffff10000700ffffffff20000500ffffffff",
    "system.posix_acl_default": "0200000001000700ffffffff04000500ffffffff20000500ffffffff",
  });
  expect(found.get("large")!.xattrs).toEqual({ "user.v": "07".repeat(60_000), "user.w": "08".repeat(65_535) });
  expect(found.get("s")).toMatchObject({ target: "z".repeat(90), xattrs: { "trusted.big": "01".repeat(5000) } });
  expect(found.get("d")!.xattrs).toEqual({ "user.d": "02".repeat(4000) });
  expect((await make(directory.newName(), archive({ name: "a", pax: { "SCHILY.xattr.com.apple.x": "1" } }))).droppedXattrs).toBe(1);
  expect(await refusal({ name: "a", pax: { "SCHILY.xattr.user.v": Buffer.alloc(65_536) } })).toContain("65535");
  expect(await refusal({ name: "a", pax: { [`SCHILY.xattr.user.${"n".repeat(256)}`]: "" } })).toContain("255");
  expect(await refusal({ name: "a", pax: { "SCHILY.acl.access": "user:joe:rwx" } })).toContain("names nobody by number");
});

test("sparse files cost what their data costs", async () => {
  const sparse = (name: string, size: number, map: string, data: Buffer) => ({ name, data, pax: { "GNU.sparse.size": String(size), "GNU.sparse.name": name, "GNU.sparse.map": map } });
  const path = directory.newName();
  const { sizeBytes } = await make(path, archive(sparse("huge", 10 * 2 ** 30, `0,4,${5 * 2 ** 30},4,${10 * 2 ** 30 - 4},4`, Buffer.from("headmidltail")), sparse("void", 2 ** 41, `${2 ** 41},0`, Buffer.alloc(0))));
  expect(sizeBytes).toBeLessThan(1 << 20);
  const data = Buffer.alloc(300_000, "0123456789");
  const found = await makeAndRead(directory.newName(), archive(sparse("a", 1_000_001, "10,5,4000,200,8192,4096,20000,90000,999999,2", data.subarray(0, 94_303)), sparse("full", 300_000, "0,300000", data), sparse("none", 5000, "", Buffer.alloc(0)), { name: "after", data: "z" }));
  const expected = Buffer.alloc(1_000_001);
  let from = 0;
  for (const [offset, length] of [[10, 5], [4000, 200], [8192, 4096], [20_000, 90_000], [999_999, 2]] as const) {
    data.copy(expected, offset, from, from + length);
    from += length;
  }
  expect(found.get("a")!.content!.equals(expected)).toBe(true);
  expect(found.get("full")!.content!.equals(data)).toBe(true);
  expect(found.get("none")!.content!.equals(Buffer.alloc(5000))).toBe(true);
  expect(found.get("after")!.content!.toString()).toBe("z");
});

test("the same archive gives the same bytes, and the digest is theirs", async () => {
  const tar = archive({ name: "b", data: "x".repeat(9000), pax: { "SCHILY.xattr.user.b": "1", "SCHILY.xattr.user.a": "2" } }, { name: "a/c", type: "2", link: "q" }, { name: "a/b", type: "1", link: "b" });
  const [one, two] = [directory.newName(), directory.newName()];
  const result = await make(one, tar);
  expect(await make(two, tar, { chunkBytes: 100 })).toEqual(result);
  expect(readFileSync(one).equals(readFileSync(two))).toBe(true);
  expect(result).toEqual({ sizeBytes: readFileSync(one).length, digest: `sha256:${createHash("sha256").update(readFileSync(one)).digest("hex")}`, entries: 3, inodes: 4, droppedXattrs: 0 });
});

test("times after clampMtime become it", async () => {
  const found = await makeAndRead(directory.newName(), archive({ name: "new", mtime: 2000 }, { name: "same", mtime: 0, pax: { mtime: "1000.5" } }, { name: "old", pax: { mtime: "999.5" } }), { clampMtime: 1000 });
  expect(["new", "same", "old"].map((name) => [found.get(name)!.seconds, found.get(name)!.nanoseconds])).toEqual([[1000, 0], [1000, 0], [999, 500_000_000]]);
});

test("the tree can be changed between entries, for layers", async () => {
  const path = directory.newName();
  const building = await ErofsImage.create(path);
  for await (const entry of readTar(stream(archive({ name: "etc/passwd", data: "root" }, { name: "etc/shadow", data: "x" }, { name: "var/log/a" })))) await building.add(entry);
  expect(building.tree.remove(Buffer.from("etc/shadow"))).toBe(true);
  expect(building.tree.remove(Buffer.from("etc/none"))).toBe(false);
  expect(building.tree.remove(Buffer.from("var"))).toBe(true);
  for await (const entry of readTar(stream(archive({ name: "etc/p2", type: "1", link: "etc/passwd" })))) await building.add(entry);
  const result = await building.finish();
  expect([...readErofs(path).keys()]).toEqual(["", "etc", "etc/p2", "etc/passwd"]);
  expect(result.inodes).toBe(3);
});

test("what is there already is left alone", async () => {
  const path = directory.newName();
  await make(path, archive({ name: "a" }));
  const before = readFileSync(path);
  await expect(make(path, archive({ name: "b" }))).rejects.toMatchObject({ code: "EXISTS" });
  expect(readFileSync(path).equals(before)).toBe(true);
});

test("an abort leaves no file", async () => {
  const controller = new AbortController();
  const path = directory.newName();
  const source = async function* () {
    yield* stream(archive({ name: "a", data: "x".repeat(100_000) }).subarray(0, 50_000));
    setImmediate(() => controller.abort());
    await new Promise(() => {});
  };
  await expect(writeErofs(readTar(source(), { signal: controller.signal }), path, { signal: controller.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  expect(existsSync(path)).toBe(false);
  await expect(writeErofs(readTar(stream(archive({ name: "a" }))), path, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "CANCELLED" });
  expect(existsSync(path)).toBe(false);
});

test("a full disk is DISK_FULL, and leaves no file", async ({ skip }) => {
  const mountPoint = join(directory.path(), "full");
  await mkdir(mountPoint);
  const mounted = await runChild("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", mountPoint]);
  if (mounted.code !== 0) return skip(`a small tmpfs can't be mounted here: ${mounted.stderr.trim()}`);
  try {
    for (const size of [3_000_000, 30_000_000]) {
      await expect(make(join(mountPoint, "i"), archive({ name: "a", data: Buffer.alloc(size, 1) }))).rejects.toMatchObject({ code: "DISK_FULL" });
      expect(await readdir(mountPoint)).toEqual([]);
    }
  } finally {
    await runChild("umount", [mountPoint]);
  }
});

test("limits of the image are named", async () => {
  await expect(make(directory.newName(), archive({ name: "a", data: "x".repeat(5000) }), { limits: { maxImageBytes: 8192 } })).rejects.toThrow("maxImageBytes (8192)");
  await expect(make(directory.newName(), archive({ name: "a".repeat(90) }), { limits: { maxMetadataBytes: 80 } })).rejects.toThrow("maxMetadataBytes (80)");
  const map = `0,1,${2 ** 41 - 1},1`;
  await expect(make(directory.newName(), archive({ name: "a", data: "xy", pax: { "GNU.sparse.size": String(2 ** 41), "GNU.sparse.map": map } }), { limits: { maxMetadataBytes: 1000 } })).rejects.toThrow("maxMetadataBytes (1000)");
  await expect(make(directory.newName(), archive({ name: "a", type: "2", link: "x", pax: { linkpath: "t".repeat(4000) } }), { limits: { maxMetadataBytes: 4000 } })).rejects.toThrow("maxMetadataBytes (4000)");
  await expect(make(directory.newName(), archive({ name: "a", pax: { "SCHILY.xattr.user.a": "v".repeat(1000) } }), { limits: { maxMetadataBytes: 1200 } })).rejects.toThrow("maxMetadataBytes (1200)");
});

test("directories that an archive names only by what is in them count like all others", async () => {
  const deep = (depth: number, first = "d") => ({ name: "a", pax: { path: `${first}${"/a".repeat(depth - 1)}` } });
  expect((await make(directory.newName(), archive(deep(256)))).inodes).toBe(257);
  await expect(make(directory.newName(), archive(deep(257)))).rejects.toThrow("over the limit maxDepth (256)");
  const many = archive(...Array.from({ length: 10 }, (_, index) => deep(250, `d${index}`)));
  await expect(make(directory.newName(), many, { limits: { maxInodes: 2500 } })).rejects.toThrow("over the limit maxInodes (2500)");
  await expect(make(directory.newName(), many, { limits: { maxMetadataBytes: 1_400_000 } })).rejects.toThrow("over the limit maxMetadataBytes (1400000)");
  expect((await make(directory.newName(), many)).inodes).toBe(2501);
});

test("no name of an archive reaches a terminal as it is", async () => {
  const name = Buffer.from("a\x1b[2J\u009b\u202e\x7f\n/../b");
  await expect(make(directory.newName(), archive({ name }))).rejects.toThrow(String.raw`"a\x1b[2J\x9b\u202e\x7f\n/../b" has ".." in it`);
});

test("extents that make no sense are a fault, not a loop without an end", async () => {
  const file = await BlockFile.create(directory.newName());
  const writer = new SparseWriter(file, 4096, 0, [{ offset: 0, length: 0 }]);
  await expect(writer.append(Buffer.from("x"))).rejects.toMatchObject({ code: "INTERNAL" });
  await file.discard();
});
