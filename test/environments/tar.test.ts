import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { readTar, type ReadTarOptions, type TarEntry } from "../../src/environments/tar.js";
import { archive, header, member, padded, paxHeader, record, sign, stream, theEnd, type Member } from "./tar-maker.js";

interface Read extends Omit<TarEntry, "content" | "path" | "linkTarget" | "xattrs"> {
  path: string;
  linkTarget?: string;
  xattrs: Record<string, string>;
  data: string;
}

async function readAll(tar: Buffer, options: ReadTarOptions = {}, chunkBytes?: number): Promise<Read[]> {
  const entries: Read[] = [];
  for await (const { content, path, linkTarget, xattrs, ...rest } of readTar(stream(tar, chunkBytes), options)) {
    const parts: Buffer[] = [];
    for await (const part of content()) parts.push(Buffer.from(part));
    entries.push({
      ...rest, path: path.toString("latin1"), data: Buffer.concat(parts).toString("latin1"),
      ...(linkTarget === undefined ? {} : { linkTarget: linkTarget.toString("latin1") }),
      xattrs: Object.fromEntries([...xattrs].map(([name, value]) => [name, value.toString("hex")])),
    });
  }
  return entries;
}

async function readOne(each: Member | Buffer, options: ReadTarOptions = {}): Promise<Read> {
  return (await readAll(archive(each), options))[0]!;
}

async function refusal(tar: Buffer, options: ReadTarOptions = {}): Promise<string> {
  const error: unknown = await readAll(tar, options).then(() => undefined, (reason: unknown) => reason);
  expect(error).toBeInstanceOf(PyroError);
  expect((error as PyroError).code).toBe("ENVIRONMENT_INVALID");
  return (error as PyroError).message;
}

test("a plain file", async () => {
  expect(await readOne({ name: "bin/ls", mode: 0o4755, uid: 1000, gid: 100, mtime: 1_700_000_000, data: "hello" })).toEqual({
    path: "bin/ls", type: "file", mode: 0o4755, uid: 1000, gid: 100, size: 5, mtime: { seconds: 1_700_000_000, nanoseconds: 0 }, xattrs: {}, offset: 0, data: "hello",
  });
});

test("every type", async () => {
  const tar = archive(
    { name: "f" }, { name: "c", type: "7", data: "x" }, { name: "old", type: "\0", magic: "v7", data: "y" }, { name: "olddir/", type: "\0", magic: "v7" }, { name: "h", type: "1", link: "f" },
    { name: "s", type: "2", link: "to" }, { name: "tty", type: "3", device: [4, 64] }, { name: "sda", type: "4", device: [8, 1] }, { name: "d/", type: "5" }, { name: "p", type: "6" },
    { name: "label", type: "V", magic: "gnu" },
  );
  expect((await readAll(tar)).map(({ path, type, linkTarget, device }) => [path, type, linkTarget, device])).toEqual([
    ["f", "file", undefined, undefined], ["c", "file", undefined, undefined], ["old", "file", undefined, undefined], ["olddir/", "directory", undefined, undefined], ["h", "hardlink", "f", undefined],
    ["s", "symlink", "to", undefined], ["tty", "character", undefined, { major: 4, minor: 64 }], ["sda", "block", undefined, { major: 8, minor: 1 }], ["d/", "directory", undefined, undefined], ["p", "fifo", undefined, undefined],
  ]);
});

test("the same entries whatever the chunks are", async () => {
  const tar = archive(
    { name: "a", data: "x".repeat(1000), pax: { path: "long/".repeat(40) + "a", mtime: "1.5" } }, { name: "b", type: "2", link: "a" },
    Buffer.concat([header({ name: "m", data: "1\n512\n512\n".padEnd(1024, "\0"), pax: {} }), padded(Buffer.from("1\n512\n512\n".padEnd(512, "\0") + "z".repeat(512)))]),
  );
  const whole = await readAll(tar);
  expect(whole).toHaveLength(3);
  for (const chunkBytes of [1, 7, 511, 512, 513, 1023, 4096]) expect(await readAll(tar, {}, chunkBytes)).toEqual(whole);
});

test("content that nobody takes is skipped", async () => {
  const paths: string[] = [];
  for await (const entry of readTar(stream(archive({ name: "a", data: "x".repeat(5000) }, { name: "b" }), 100))) paths.push(entry.path.toString());
  expect(paths).toEqual(["a", "b"]);
});

test("names: prefix, GNU long name and link, PAX", async () => {
  expect((await readOne({ name: "name", prefix: "some/where" })).path).toBe("some/where/name");
  // GNU keeps times in the bytes of the prefix.
  expect((await readOne({ name: "name", magic: "gnu", prefix: "14000000000" })).path).toBe("name");
  const long = "d/".repeat(300) + "n";
  const [entry] = await readAll(archive({ name: "././@LongLink", type: "L", data: `${long}\0`, magic: "gnu" }, { name: "././@LongLink", type: "K", data: `${long}2\0`, magic: "gnu" }, { name: "short", type: "2", link: "x", magic: "gnu" }));
  expect([entry!.path, entry!.linkTarget]).toEqual([long, `${long}2`]);
  const pax = await readOne({ name: "x", type: "2", link: "y", pax: { path: "p\xe9", linkpath: "l" } });
  expect([Buffer.from(pax.path, "latin1").toString("hex"), pax.linkTarget]).toEqual(["70c3a9", "l"]);
  expect((await readOne({ name: Buffer.from([0xff, 0x01, 0x0a]) })).path).toBe("\xff\x01\n");
});

test("global headers hold until they are taken back, an entry's own go before them", async () => {
  const tar = archive(paxHeader({ uid: "77", gid: "78" }, "g"), { name: "a", pax: { uid: "5" } }, { name: "b" }, paxHeader({ uid: "" }, "g"), { name: "c", uid: 3 });
  expect((await readAll(tar)).map(({ path, uid, gid }) => [path, uid, gid])).toEqual([["a", 5, 78], ["b", 77, 78], ["c", 3, 78]]);
});

test("numbers: base-256, PAX, times before 1970", async () => {
  const entry = await readOne({ name: "n", patch: (block) => {
    Buffer.from("8000000080000001", "hex").copy(block, 108);
    Buffer.from("fffffffffffffffffffffff6", "hex").copy(block, 136);
  } });
  expect([entry.uid, entry.mtime]).toEqual([2_147_483_649, { seconds: -10, nanoseconds: 0 }]);
  expect((await readOne({ name: "n", pax: { uid: "4294967295", mtime: "1700000000.123456789012" } }))).toMatchObject({ uid: 4_294_967_295, mtime: { seconds: 1_700_000_000, nanoseconds: 123_456_789 } });
  expect((await readOne({ name: "n", pax: { mtime: "-1.5" } })).mtime).toEqual({ seconds: -2, nanoseconds: 500_000_000 });
  expect((await readOne({ name: "n", pax: { mtime: "-0.25" } })).mtime).toEqual({ seconds: -1, nanoseconds: 750_000_000 });
  expect((await readOne({ name: "n", pax: { mtime: "-3" } })).mtime).toEqual({ seconds: -3, nanoseconds: 0 });
  expect(await readOne({ name: "n", size: 0, data: "abc", pax: { size: "3" } })).toMatchObject({ size: 3, data: "abc" });
});

test("extended attributes are bytes", async () => {
  const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");
  const entry = await readOne({ name: "n", pax: { "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.a=": "", "LIBARCHIVE.xattr.user.%62": "AP8=", "SCHILY.xattr.user.n": "a\nb=c\n" } });
  // "user.a=" can't be told from "user.a" with the value "=": the first equals sign ends the key.
  expect(entry.xattrs).toEqual({ "security.capability": "0100000200240000000000000000000000000000", "user.a": "3d", "user.b": "00ff", "user.n": "610a623d630a" });
});

test("checksums: signed sums count too, wrong ones don't", async () => {
  const block = header({ name: Buffer.from([0xe9, 0xe9]) });
  const sum = parseInt(block.toString("latin1", 148, 154), 8) - 512;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  expect(await readAll(archive(block))).toHaveLength(1);
  block[0] = 0xe8;
  expect(await refusal(archive({ name: "a" }, block))).toBe("The archive is damaged, or no tar archive: a header with a wrong checksum at byte 512.");
});

test("sparse files in all four spellings", async () => {
  const data = "A".repeat(512) + "B".repeat(512);
  const expected = { type: "file", size: 1_000_000, sparse: [{ offset: 4096, length: 512 }, { offset: 8192, length: 512 }], data };
  const old = await readOne({ name: "s", type: "S", magic: "gnu", data, patch: (block) => {
    ["00000010000", "00000001000", "00000020000", "00000001000", "00003641100", "00000000000"].forEach((text, index) => block.write(text, 386 + index * 12, "latin1"));
    block.write("00003641100", 483, "latin1");
  } });
  expect(old).toMatchObject(expected);
  const zero = Buffer.concat([record("GNU.sparse.size", "1000000"), record("GNU.sparse.numblocks", "2"), record("GNU.sparse.offset", "4096"), record("GNU.sparse.numbytes", "512"), record("GNU.sparse.offset", "8192"), record("GNU.sparse.numbytes", "512")]);
  expect(await readOne(Buffer.concat([header({ name: "x", type: "x", data: zero }), padded(zero), member({ name: "s", data })]))).toMatchObject(expected);
  expect(await readOne({ name: "s", data, pax: { "GNU.sparse.size": "1000000", "GNU.sparse.name": "real", "GNU.sparse.map": "4096,512,8192,512" } })).toMatchObject({ ...expected, path: "real" });
  const map = "2\n4096\n512\n8192\n512\n".padEnd(512, "\0");
  expect(await readOne({ name: "s", data: map + data, pax: { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "real", "GNU.sparse.realsize": "1000000" } })).toMatchObject({ ...expected, path: "real" });
});

test("old GNU sparse maps go on in extension blocks", async () => {
  const extension = Buffer.alloc(512);
  for (let index = 0; index < 21; index++) {
    extension.write((1_000_000 + index * 1000).toString(8).padStart(11, "0"), index * 24, "latin1");
    extension.write((1).toString(8).padStart(11, "0"), index * 24 + 12, "latin1");
  }
  const last = Buffer.alloc(512);
  last.write((2_000_000).toString(8).padStart(11, "0"), 0, "latin1");
  last.write((2).toString(8).padStart(11, "0"), 12, "latin1");
  extension[504] = 1;
  const first = header({ name: "s", type: "S", magic: "gnu", size: 23, patch: (block) => {
    block[482] = 1;
    block.write((3_000_000).toString(8).padStart(11, "0"), 483, "latin1");
  } });
  const [entry, next] = await readAll(archive(Buffer.concat([first, extension, last, padded(Buffer.from("x".repeat(23)))]), { name: "next" }));
  expect(entry!.sparse).toHaveLength(22);
  expect(entry!.sparse![21]).toEqual({ offset: 2_000_000, length: 2 });
  expect(next!.path).toBe("next");
});

test("links, devices and directories have no data, whatever their size field says", async () => {
  for (const type of ["1", "2", "3", "4", "5", "6"]) {
    const entries = await readAll(archive(header({ name: "l", type, link: "t", size: 4000, device: [1, 3] }), { name: "next" }));
    expect(entries.map(({ path, size }) => [path, size])).toEqual([["l", 0], ["next", 0]]);
  }
});

test("damage is named, with its place", async () => {
  expect(await refusal(Buffer.alloc(0))).toBe("The archive is cut off after 0 bytes.");
  expect(await refusal(member({ name: "a" }))).toBe("The archive is cut off after 512 bytes.");
  expect(await readAll(member({ name: "a" }), { endMayBeMissing: true })).toHaveLength(1);
  // As umoci writes layers: also the last file's padding is missing.
  expect(await readAll(member({ name: "a", data: "hi\n" }).subarray(0, 515), { endMayBeMissing: true })).toHaveLength(1);
  await expect(readAll(member({ name: "a", data: "hi\n" }).subarray(0, 514), { endMayBeMissing: true })).rejects.toThrow("cut off after 514 bytes");
  await expect(readAll(member({ name: "a", data: "hi\n" }).subarray(0, 515))).rejects.toThrow("cut off after 515 bytes");
  expect(await refusal(archive({ name: "a", data: "x".repeat(2000) }).subarray(0, 1500))).toBe("The archive is cut off after 1500 bytes.");
  expect(await refusal(Buffer.from("#!/bin/sh\n".repeat(200)))).toContain("no tar archive");
  expect(await refusal(archive({ name: "" }))).toContain("an entry without a name at byte 0");
  expect(await refusal(archive({ name: "a", type: "Z" }))).toBe('The archive\'s entry "a" (byte 0) is of the unknown type "Z".');
  expect(await refusal(archive({ name: "a", type: "2" }))).toContain("a link without a target");
  expect(await refusal(archive({ name: "a", patch: (block) => block.write("zzz", 124, "latin1") }))).toContain('"a" (byte 0) has an unreadable size');
  expect(await refusal(archive({ name: "a", patch: (block) => block.write("-1", 108, "latin1") }))).toContain("the uid of");
  expect(await refusal(archive({ name: "a", pax: { path: "a\0b" } }))).toContain("NUL");
  expect(await refusal(archive({ name: "a", pax: { mtime: "noon" } }))).toContain("unreadable modification time");
  for (const bad of ["99 path=a\n", "9 path=ab", "path=a\n", "5 =a\n", "12 path", "0 a=b\n"]) {
    expect(await refusal(archive(Buffer.concat([header({ name: "x", type: "x", data: bad }), padded(Buffer.from(bad))]), { name: "a" }))).toContain("in the extended header at byte 0");
  }
  expect(await refusal(Buffer.concat([paxHeader({ uid: "1" }), theEnd]))).toContain("cut off");
});

test("sparse maps that make no sense are refused", async () => {
  for (const map of ["0,512,100,512", "4096,512,0,512", "0,1024,999999,2", "0,512", "0,512,1024,1", "a,b", "0", "0,-1,0,1025"]) {
    expect(await refusal(archive({ name: "s", data: "x".repeat(1024), pax: { "GNU.sparse.size": "1000000", "GNU.sparse.map": map } }))).toContain("makes no sense");
  }
  expect(await refusal(archive({ name: "s", data: "x\n", pax: { "GNU.sparse.major": "1", "GNU.sparse.realsize": "9" } }))).toContain("sparse map that does not end");
  expect(await refusal(archive({ name: "s", data: "99999\n".padEnd(512, "1\n"), pax: { "GNU.sparse.major": "1", "GNU.sparse.realsize": "9" } }))).toContain("does not end");
});

test("every limit is named in its error", async () => {
  const big = { name: "a", data: "x".repeat(100) };
  expect(await refusal(archive({ name: "a".repeat(90) }), { limits: { maxPathBytes: 89 } })).toContain("maxPathBytes (89)");
  expect(await refusal(archive({ name: "a", type: "2", link: "b".repeat(90) }), { limits: { maxPathBytes: 89 } })).toContain("maxPathBytes (89)");
  expect(await refusal(archive({ name: "a", pax: { comment: "c".repeat(2000) } }), { limits: { maxHeaderBytes: 2000 } })).toContain("maxHeaderBytes (2000)");
  expect(await refusal(archive(header({ name: "a", type: "L", size: 2 ** 32 })))).toContain("maxHeaderBytes (1048576)");
  expect(await refusal(archive({ name: "a", pax: { "SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.b": "1" } }), { limits: { maxXattrs: 1 } })).toContain("maxXattrs (1)");
  expect(await refusal(archive({ name: "a", pax: { "SCHILY.xattr.user.a": "12345" } }), { limits: { maxXattrBytes: 10 } })).toContain("maxXattrBytes (10)");
  expect(await refusal(archive(big, { name: "b" }), { limits: { maxEntries: 1 } })).toContain("maxEntries (1)");
  expect(await refusal(archive({ name: "s", data: "xx", pax: { "GNU.sparse.size": "9", "GNU.sparse.map": "0,1,5,1" } }), { limits: { maxSparseExtents: 1 } })).toContain("maxSparseExtents (1)");
  expect(await refusal(archive({ name: "s", data: "2\n0\n1\n5\n1\n".padEnd(514, "\0"), pax: { "GNU.sparse.major": "1", "GNU.sparse.realsize": "9" } }), { limits: { maxSparseExtents: 1 } })).toContain("maxSparseExtents (1)");
  expect(await refusal(archive(big), { limits: { maxFileBytes: 99 } })).toContain("maxFileBytes (99)");
  expect(await refusal(archive({ name: "s", data: "", pax: { "GNU.sparse.size": "100", "GNU.sparse.map": "" } }), { limits: { maxFileBytes: 99 } })).toContain("maxFileBytes (99)");
  expect(await refusal(archive({ name: "s", data: "x", pax: { "GNU.sparse.size": "100", "GNU.sparse.map": "0,1" } }), { limits: { maxFileBytes: 99 } })).toContain("maxFileBytes (99)");
  expect(await refusal(archive(big), { limits: { maxArchiveBytes: 600 } })).toContain("maxArchiveBytes (600)");
  expect(await refusal(Buffer.concat([archive(big), Buffer.alloc(100_000)]), { limits: { maxArchiveBytes: 5000 } })).toContain("maxArchiveBytes (5000)");
  const global = (key: string) => paxHeader({ [key]: "v".repeat(600_000) }, "g");
  expect(await refusal(archive(global("a"), { name: "one" }, global("b"), { name: "two" }))).toContain("maxGlobalBytes (1048576)");
  expect(await refusal(archive(...Array.from({ length: 20 }, () => paxHeader({ uid: "1" })), { name: "a" }))).toContain("maxHeadersPerEntry (16)");
});

test("what follows the end is read and ignored", async () => {
  let taken = 0;
  const source = async function* () {
    for await (const chunk of stream(Buffer.concat([archive({ name: "a" }), Buffer.from("rubbish".repeat(10_000))]), 1000)) {
      taken += chunk.length;
      yield chunk;
    }
  };
  const paths: string[] = [];
  for await (const entry of readTar(source())) paths.push(entry.path.toString());
  expect([paths, taken]).toEqual([["a"], 512 + 1024 + 70_000]);
});

test("a source that hangs is left when the signal aborts", async () => {
  const controller = new AbortController();
  const source = async function* () {
    yield header({ name: "a", data: "xyz" });
    await new Promise(() => {});
  };
  const reading = (async () => {
    for await (const entry of readTar(source(), { signal: controller.signal })) {
      setImmediate(() => controller.abort());
      for await (const _ of entry.content());
    }
  })();
  await expect(reading).rejects.toMatchObject({ code: "CANCELLED" });
});

test("stopping early closes the source", async () => {
  let closed = false;
  const source = async function* () {
    try {
      yield archive({ name: "a" }, { name: "b" });
      yield theEnd;
    } finally {
      closed = true;
    }
  };
  for await (const _ of readTar(source())) break;
  expect(closed).toBe(true);
});

test("an earlier entry's content can't be had any more", async () => {
  const entries: TarEntry[] = [];
  for await (const entry of readTar(stream(archive({ name: "a", data: "x" }, { name: "b", data: "y" })))) entries.push(entry);
  await expect((async () => { for await (const _ of entries[0]!.content()); })()).rejects.toMatchObject({ code: "INTERNAL" });
});

test("sign makes the checksum that tar wants", () => {
  expect(sign(Buffer.alloc(512)).toString("latin1", 148, 156)).toBe("000400\0 ");
});
