import { mkdir, readFile } from "node:fs/promises";
import { createReadStream } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { runChild } from "../../src/base/child.js";
import { writeErofs } from "../../src/environments/erofs.js";
import { readTar } from "../../src/environments/tar.js";
import { fsck, has, useDirectory } from "./erofs-check.js";
import { readErofs, type ReadInode } from "./erofs-reader.js";

const directory = useDirectory();
let tree = "";
let ready = false;
const unready = "tar or python3 is not installed";

beforeAll(async () => {
  if (!(await has("python3")) || !(await has("tar"))) return; // the tests say so
  tree = join(directory.path(), "tree");
  await run("python3", [script("erofs-tree.py"), tree]);
  ready = true;
});

const formats = [
  ["v7"], ["oldgnu"], ["gnu"], ["ustar"], ["posix"],
  ["gnu", "--sparse"], ["oldgnu", "--sparse"], ["posix", "--sparse", "--sparse-version=0.0"], ["posix", "--sparse", "--sparse-version=0.1"], ["posix", "--sparse", "--sparse-version=1.0"],
  ["posix", "--xattrs", "--xattrs-include=*"], ["posix", "--sparse", "--xattrs", "--xattrs-include=*", "--sort=name"],
] as const;

for (const [format, ...flags] of formats) {
  test(`GNU tar, ${[format, ...flags].join(" ")}`, async ({ skip }) => {
    skip(!ready, unready);
    const tar = join(directory.path(), `${format}${flags.join("")}.tar`.replaceAll("*", ""));
    // v7 and ustar have no room for some of the tree; tar says so with status 2 and leaves those out.
    const { code } = await runChild("tar", [`--format=${format}`, ...flags, "--numeric-owner", "-C", tree, "-cf", tar, "."]);
    expect(code === 0 || format === "v7" || format === "ustar").toBe(true);
    await compare(tar);
  });
}

test("GNU tar, --acls: the attribute from the archive's text is the one that the file has", async ({ skip }) => {
  skip(!ready, unready);
  const tar = join(directory.path(), "acl.tar");
  await run("tar", ["--format=posix", "--acls", "--numeric-owner", "-C", tree, "-cf", tar, "almost", "old"]);
  const found = await image(tar);
  if (!(await readFile(tar)).includes("SCHILY.acl.access")) return skip("tar or the file system has no ACLs");
  expect(found.get("almost")!.xattrs).toEqual({ "system.posix_acl_access": "0200000001000600ffffffff0200040031d4000004000400ffffffff10000400ffffffff20000000ffffffff" });
  expect(found.get("old")!.xattrs).toEqual({});
});

for (const format of ["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"]) {
  test(`Python's tarfile, ${format}`, async ({ skip }) => {
    skip(!ready, unready);
    const tar = join(directory.path(), `${format}.tar`);
    await run("python3", ["-c", pythonMaker, tar, format]);
    await compare(tar);
  });
}

const pythonMaker = `
import io, sys, tarfile
wide = sys.argv[2] != "USTAR_FORMAT"
with tarfile.open(sys.argv[1], "w", format=getattr(tarfile, sys.argv[2])) as archive:
    def add(name, data=b"", **facts):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in facts.items(): setattr(info, key, value)
        archive.addfile(info, io.BytesIO(data))
    add("a", b"first", uid=1)
    add("./b/c/d", b"x" * 10000, uid=(3_000_000_000 if wide else 5), gid=(4_000_000_000 if wide else 6), mtime=(-86400.5 if sys.argv[2] == "PAX_FORMAT" else 86400))
    add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    add("loop", type=tarfile.BLKTYPE, devmajor=7, devminor=200, mode=0o660)
    add("hard", type=tarfile.LNKTYPE, linkname="b/c/d")
    add("soft", type=tarfile.SYMTYPE, linkname="b/c/d")
    add("a", b"second", uid=2)
    add(("l" * 60 + "/") * (4 if wide else 2) + "end", b"long")
    add("dir", type=tarfile.DIRTYPE, mode=0o2775)
    add("b/c/d", b"replaced")
    add("hard2", type=tarfile.LNKTYPE, linkname="b/c/d")
`;

test("Linux mounts the image, and GNU tar finds everything in it that is in the archive", async ({ skip }) => {
  skip(!ready, unready);
  const tar = join(directory.path(), "mounted.tar");
  const path = directory.newName();
  await run("tar", ["--format=posix", "--sparse", "--numeric-owner", "-C", tree, "-cf", tar, "."]);
  await writeErofs(readTar(createReadStream(tar)), path);
  const mountPoint = join(directory.path(), "mounted");
  await mkdir(mountPoint);
  const { code, stderr } = await runChild("mount", ["-t", "erofs", "-o", "loop,ro", path, mountPoint]);
  if (code !== 0) return skip(`not mounted here: ${stderr.trim()}`);
  try {
    const compared = await runChild("tar", ["--compare", "--numeric-owner", "-C", mountPoint, "-f", tar]);
    expect(compared.stdout.toString() + compared.stderr).toBe("");
    expect(compared.code).toBe(0);
    // Every name is found by its own: the kernel searches directories by halves.
    const listed = await run("find", [mountPoint, "-printf", "%P\\n"]);
    expect(listed.split("\n").length).toBeGreaterThan(520);
    const attributes = await run("python3", ["-c", "import os, sys, json; json.dump({n: {k: os.getxattr(n, k).hex() for k in os.listxattr(n)} for n in (os.path.join(sys.argv[1], f) for f in ['block', 'deep'])}, sys.stdout)", mountPoint]);
    expect(JSON.parse(attributes)).toEqual({ [`${mountPoint}/block`]: {}, [`${mountPoint}/deep`]: {} });
  } finally {
    await runChild("umount", [mountPoint]);
  }
});

test("Linux reads back the attributes", async ({ skip }) => {
  skip(!ready, unready);
  const tar = join(directory.path(), "attributes.tar");
  const path = directory.newName();
  await run("tar", ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-C", tree, "-cf", tar, "."]);
  await writeErofs(readTar(createReadStream(tar)), path);
  const mountPoint = join(directory.path(), "attributes");
  await mkdir(mountPoint);
  const { code, stderr } = await runChild("mount", ["-t", "erofs", "-o", "loop,ro", path, mountPoint]);
  if (code !== 0) return skip(`not mounted here: ${stderr.trim()}`);
  try {
    const list = "import os, sys, json\nos.chdir(sys.argv[1])\njson.dump({n: {k: os.getxattr(n, k).hex() for k in sorted(os.listxattr(n))} for n in ['block', 'almost', 'bin/su', 'deep', 'old']}, sys.stdout)";
    expect(JSON.parse(await run("python3", ["-c", list, mountPoint]))).toEqual(JSON.parse(await run("python3", ["-c", list, tree])));
  } finally {
    await runChild("umount", [mountPoint]);
  }
});

/** The image of an archive against what Python's tarfile says of the archive. */
async function compare(tar: string): Promise<void> {
  const found = await image(tar);
  const expected = JSON.parse(await run("python3", [script("erofs-describe.py"), tar])) as Record<string, Record<string, unknown>>;
  expect(Object.keys(expected).length).toBeGreaterThan(7);
  const groups = new Map<unknown, number>();
  for (const [name, { group, ...facts }] of Object.entries(expected)) {
    const inode = found.get(name);
    expect(inode, name).toMatchObject(facts);
    // A group of hard links is one inode, and every group another.
    expect(groups.get(group) ?? inode!.nid, name).toBe(inode!.nid);
    groups.set(group, inode!.nid);
  }
  expect(new Set(groups.values()).size).toBe(groups.size);
  const names = new Set([...Object.keys(expected), ...Object.keys(expected).flatMap((name) => name.split("/").map((_, index, parts) => parts.slice(0, index).join("/")))]);
  expect([...found.keys()].sort()).toEqual([...names, ""].filter((name, index, all) => all.indexOf(name) === index).sort());
}

async function image(tar: string): Promise<Map<string, ReadInode>> {
  const path = directory.newName();
  await writeErofs(readTar(createReadStream(tar, { highWaterMark: 1 << 18 })), path);
  await fsck(path);
  return readErofs(path);
}

async function run(program: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runChild(program, args);
  if (code !== 0) throw new Error(`${program}: ${stderr}`);
  return stdout.toString();
}

function script(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
