/** The rules of layers, one by one, and what hostile ones try. */
import { readFile, stat } from "node:fs/promises";
import { expect, test } from "vitest";
import { mergeLayers, type MergeOptions, type MergeResult } from "../../src/environments/layers.js";
import { useDirectory } from "./erofs-check.js";
import { readErofs, type ReadInode } from "./erofs-reader.js";
import { archive, stream, type Member } from "./tar-maker.js";

const directory = useDirectory();

interface Merged extends MergeResult {
  path: string;
  found: Map<string, ReadInode>;
  /** How often each layer was opened. */
  opened: number[];
}

async function merge(layers: readonly (readonly Member[])[], options: MergeOptions = {}): Promise<Merged> {
  const path = directory.newName();
  const opened = layers.map(() => 0);
  const result = await mergeLayers(
    layers.map((members, index) => ({
      name: `layer${index}`,
      open() {
        opened[index]!++;
        return stream(archive(...members));
      },
    })),
    path,
    options,
  );
  return { ...result, path, found: readErofs(path), opened };
}

const names = ({ found }: Merged) => [...found.keys()].sort().slice(1);
const dir = (name: string, more: Partial<Member> = {}): Member => ({ name, type: "5", mode: 0o755, ...more });
const link = (name: string, target: string): Member => ({ name, type: "1", link: target });
const soft = (name: string, target: string): Member => ({ name, type: "2", link: target });

test("what an upper layer replaces or removes is not written, and each layer is read once", async () => {
  const secret = (name: string) => ({ name, data: Buffer.alloc(200_000, `${name} `) });
  const merged = await merge([
    [secret("replaced"), secret("removed"), secret("tree/removed"), secret("opaque/removed"), secret("hidden/below"), secret("kept")],
    [{ name: "replaced", data: "new" }, { name: ".wh.removed" }, { name: ".wh.tree" }, { name: "opaque/.wh..wh..opq" }, { name: "hidden", data: "a file now" }],
  ]);
  expect(names(merged)).toEqual(["hidden", "kept", "opaque", "replaced"]);
  expect(merged.opened).toEqual([1, 1]);
  expect(merged.readAgain).toBe(0);
  const image = await readFile(merged.path);
  for (const gone of ["replaced replaced", "removed removed", "tree/removed", "opaque/removed", "hidden/below"]) expect(image.includes(gone), gone).toBe(false);
  expect(image.includes("kept kept")).toBe(true);
  expect((await stat(merged.path)).size).toBeLessThan(240_000);
});

test("content that a link keeps is there, wherever the link is", async () => {
  const inSame = await merge([[{ name: "a", data: "x" }, link("b", "a")], [{ name: ".wh.a" }]]);
  expect(names(inSame)).toEqual(["b"]);
  expect(inSame.found.get("b")!.content!.toString()).toBe("x");
  expect(inSame).toMatchObject({ readAgain: 1, opened: [2, 1] });
  const above = await merge([[{ name: "a", data: "x" }], [link("b", "./a")], [{ name: ".wh.a" }]]);
  expect(names(above)).toEqual(["b"]);
  expect(above.found.get("b")!.content!.toString()).toBe("x");
  expect(above.readAgain).toBe(0); // that it is wanted was known in time
  const toLink = await merge([[link("c", "b"), link("b", "a"), { name: "a", data: "x" }], [link("d", "c"), { name: "c", data: "other" }]]);
  expect(toLink.found.get("d")!.nid).toBe(toLink.found.get("a")!.nid);
  expect(toLink.found.get("c")!.content!.toString()).toBe("other");
});

test("a whiteout is of the layers below, wherever in its own it stands", async () => {
  const lower = [dir("d", { uid: 7 }), { name: "d/old", data: "x" }, { name: "d/e/old", data: "x" }];
  const upper = [dir("d"), { name: "d/new", data: "y" }, { name: ".wh.d" }, { name: "d/e/new", data: "z" }];
  for (const members of [upper, upper.toReversed(), [upper[2]!, upper[0]!, upper[3]!, upper[1]!]]) {
    const merged = await merge([lower, members]);
    expect(names(merged)).toEqual(["d", "d/e", "d/e/new", "d/new"]);
    expect(merged.found.get("d")!.uid).toBe(0);
  }
  const opaque = [{ name: "d/.wh..wh..opq" }, { name: "d/new", data: "y" }];
  for (const members of [opaque, opaque.toReversed()]) {
    const merged = await merge([lower, members]);
    expect(names(merged)).toEqual(["d", "d/new"]);
    expect(merged.found.get("d")!.uid).toBe(7);
  }
  const self = await merge([[], [{ name: "a", data: "x" }, { name: ".wh.a" }]]);
  expect(names(self)).toEqual(["a"]);
});

test("a link to what its own layer takes away is one to what was there, as umoci has it where the link comes first", async () => {
  const lower = [{ name: "a", data: "old" }, dir("d"), { name: "d/in", data: "in" }];
  const upper = [link("b", "a"), { name: ".wh.a" }, link("d/c", "d/in"), link("c", "d/c"), { name: "d/.wh..wh..opq" }];
  for (const members of [upper, upper.toReversed()]) {
    const merged = await merge([lower, members]);
    expect(names(merged)).toEqual(["b", "c", "d", "d/c"]);
    expect(merged.found.get("b")!.content!.toString()).toBe("old");
    expect(merged.found.get("c")!.nid).toBe(merged.found.get("d/c")!.nid);
    expect(merged.found.get("c")!.content!.toString()).toBe("in");
  }
  // What the layer itself has of that name is what its links lead to.
  const again = await merge([lower, [{ name: ".wh.a" }, link("b", "a"), { name: "a", data: "new" }]]);
  expect(again.found.get("b")!.nid).toBe(again.found.get("a")!.nid);
  await expect(merge([lower, [{ name: ".wh.d" }, link("b", "d")]])).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining("hard link to a directory") });
  await expect(merge([lower, [{ name: ".wh.a" }, link("b", "e")]])).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining("has no target") });
});

test("names change their type, both ways", async () => {
  const merged = await merge([
    [{ name: "file-dir", data: "x" }, dir("dir-file"), { name: "dir-file/in", data: "x" }, dir("dir-link"), { name: "dir-link/in", data: "x" }, soft("link-dir", "target"), dir("target"), dir("dir-dir", { mode: 0o700 }), { name: "dir-dir/in", data: "x" }],
    [dir("file-dir"), { name: "file-dir/in", data: "y" }, { name: "dir-file", data: "y" }, soft("dir-link", "target"), dir("link-dir"), { name: "link-dir/in", data: "y" }, dir("dir-dir", { mode: 0o711 })],
  ]);
  expect(names(merged)).toEqual(["dir-dir", "dir-dir/in", "dir-file", "dir-link", "file-dir", "file-dir/in", "link-dir", "link-dir/in", "target"]);
  expect(merged.found.get("dir-dir")!.mode).toBe(0o711);
});

test("a layer that goes through a lower one's link, as merged /usr has it", async () => {
  const merged = await merge([[dir("usr/lib"), soft("lib", "usr/lib"), { name: "usr/lib/old", data: "x" }], [{ name: "lib/new", data: "y" }, { name: "lib/.wh.old" }]]);
  expect(names(merged)).toEqual(["lib", "usr", "usr/lib", "usr/lib/new"]);
});

test("what is left of AUFS and of other overlays is left out", async () => {
  const merged = await merge([[{ name: ".wh..wh.aufs", data: "x" }, dir(".wh..wh.plnk"), { name: ".wh..wh.plnk/1.2", data: "x" }, { name: "a", data: "x", pax: { "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.mine": "1", "SCHILY.xattr.security.capability": Buffer.from([1, 0, 0, 2, 0xff]) } }]]);
  expect(names(merged)).toEqual(["a"]);
  expect(merged.found.get("a")!.xattrs).toEqual({ "user.mine": "31", "security.capability": "01000002ff" });
});

test("directories that have to be there", async () => {
  const merged = await merge([[dir("srv", { uid: 5 })]], { directories: ["/srv/app/deep"] });
  expect(names(merged)).toEqual(["srv", "srv/app", "srv/app/deep"]);
  expect(merged.found.get("srv")!.uid).toBe(5);
});

// Each is how some program's extraction was broken out of, or made to remove what it should not.
const attacks: [string, Member[][], RegExp][] = [
  ["a name that climbs out", [[{ name: "../../etc/passwd", data: "x" }]], /has "\.\." in it/],
  ["a whiteout that climbs out", [[{ name: "../.wh.passwd" }]], /has "\.\." in it/],
  ["a whiteout of the directory above", [[{ name: "a/b", data: "x" }], [{ name: "a/.wh..." }]], /whiteout of no name/],
  ["a whiteout of its own directory", [[{ name: "a/b", data: "x" }], [{ name: "a/.wh.." }]], /whiteout of no name/],
  ["a whiteout of nothing", [[{ name: "a/b", data: "x" }], [{ name: "a/.wh." }]], /whiteout of no name/],
  ["a file below a whiteout", [[{ name: ".wh.a/b", data: "x" }]], /below a whiteout/],
  ["links in a circle on the way", [[soft("a", "b"), soft("b", "a")], [{ name: "a/x", data: "x" }]], /maxLinks/],
  ["a root that is a link", [[soft("./", "/etc")]], /is the root/],
  ["a hard link out", [[link("a", "../../../etc/passwd")]], /has "\.\." in it/],
  ["a hard link to what is nowhere", [[link("a", "/etc/passwd")]], /no target/],
  ["hard links in a circle", [[link("a", "b"), link("b", "a")]], /leads to itself/],
  ["a hard link to a directory", [[dir("d"), link("a", "d")]], /directory/],
  ["a path through a file", [[{ name: "a", data: "x" }], [{ name: "a/b", data: "y" }]], /which is a file/],
  ["links that multiply", [[...Array.from({ length: 30 }, (_, index) => soft(`l${index}`, `/l${index + 1}/../l${index + 1}/../l${index + 1}`)), dir("l30")], [{ name: "l0/x", data: "x" }]], /max(Links|Depth)/],
];
for (const [what, layers, message] of attacks) {
  test(`attack: ${what}`, async () => {
    await expect(merge(layers)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: expect.stringMatching(message) });
    await expect(merge(layers)).rejects.toThrow(/^Layer layer[01]: /);
  });
}

test("attack: whiteouts and files through links stay in the tree", async () => {
  const merged = await merge([
    [soft("out", "/"), soft("up", "../../../.."), dir("etc"), { name: "etc/passwd", data: "the image's" }, { name: "etc/group", data: "x" }],
    [{ name: "out/etc/.wh.passwd" }, { name: "up/etc/.wh.group" }, { name: "up/etc/shadow", data: "the image's too" }],
  ]);
  expect(names(merged)).toEqual(["etc", "etc/shadow", "out", "up"]);
});

test("limits hold over all layers together", async () => {
  const many = (prefix: string) => Array.from({ length: 60 }, (_, index) => ({ name: `${prefix}${index}`, type: "6" }));
  await expect(merge([many("a"), many("b")], { limits: { maxInodes: 100 } })).rejects.toThrow(/maxInodes \(100\)/);
  await expect(merge([many("a"), many("b")], { limits: { maxMetadataBytes: 20_000 } })).rejects.toThrow(/maxMetadataBytes/);
});
