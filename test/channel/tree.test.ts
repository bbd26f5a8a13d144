import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { encodeFrame, FrameType } from "../../src/channel/codec.js";
import { isHole, type TreeEntry } from "../../src/channel/index.js";
import { encodeMessage, u64 } from "../../src/channel/message.js";
import { readTree } from "../../src/channel/tree-reader.js";
import { writeTree } from "../../src/channel/tree-writer.js";
import { connected, settled } from "./fake-guest.js";

const directory = (path: string, more: Partial<TreeEntry> = {}): TreeEntry => ({ path: Buffer.from(path), type: "directory", mode: 0o755, uid: 1, gid: 2, mtimeNs: -1n, sizeBytes: 0n, ...more });
const file = (path: string, content: Buffer[] = []): TreeEntry => ({ ...directory(path), type: "file", content: from(content) });

async function* from<T>(values: readonly T[]): AsyncGenerator<T> {
  yield* values;
}

async function written(entries: readonly TreeEntry[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of writeTree(entries)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

async function contentOf(entry: TreeEntry): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of entry.content!) parts.push(part);
  return Buffer.concat(parts);
}

test("what is written is read again: any bytes, times before 1970, content of any size, holes", async () => {
  const large = Buffer.alloc(200_000, "ab");
  const bytes = await written([
    directory(""),
    file("empty"),
    file("large", [large, Buffer.alloc(0), Buffer.from("end")]),
    file("sparse", [Buffer.from("a"), Buffer.alloc(300_000), Buffer.from("b"), Buffer.alloc(8192)]),
    directory("d"),
    { ...directory("d/link"), type: "link", target: Buffer.from([0xff, 0x2f]) },
    { ...directory("d/fifo"), type: "fifo" },
  ]);
  expect(bytes.length).toBeLessThan(201_000);
  const read: string[] = [];
  for await (const entry of readTree(from([bytes]))) {
    expect([entry.uid, entry.gid, entry.mode, entry.mtimeNs]).toEqual([1, 2, 0o755, -1n]);
    read.push(`${entry.path.toString()} ${entry.type}`);
    if (entry.path.toString() === "large") expect((await contentOf(entry)).equals(Buffer.concat([large, Buffer.from("end")]))).toBe(true);
    if (entry.path.toString() === "sparse") expect((await contentOf(entry)).equals(Buffer.concat([Buffer.from("a"), Buffer.alloc(300_000), Buffer.from("b"), Buffer.alloc(8192)]))).toBe(true);
    if (entry.type === "link") expect(entry.target).toEqual(Buffer.from([0xff, 0x2f]));
  }
  expect(read).toEqual([" directory", "empty file", "large file", "sparse file", "d directory", "d/link link", "d/fifo fifo"]);
});

test("content that nobody reads is skipped, a hole of 2^62 bytes as well; a chunk tells whether it is one", async () => {
  const bytes = Buffer.from(readFileSync(new URL("../../protocol/vectors/trees.txt", import.meta.url), "utf8").match(/^hole-most \S+ \S+ \S+ (\S+)/m)![1]!.replace(/00\*(\d+)/g, (_, count) => "00".repeat(Number(count))).replaceAll(",", ""), "hex");
  const seen: boolean[] = [];
  for await (const entry of readTree(from([bytes]))) {
    for await (const chunk of entry.content!) {
      seen.push(isHole(chunk));
      break;
    }
  }
  expect(seen).toEqual([true]);
  const limited = readTree(from([bytes]), { maxContentBytes: 1e9 });
  const entry = (await limited.next()).value as TreeEntry;
  await expect(contentOf(entry)).rejects.toMatchObject({ code: "INVALID_STATE", message: "The tree has over 1000000000 bytes of content." });
});

test("limits on entries, depth and links", async () => {
  const many = await written([directory(""), ...Array.from({ length: 20 }, (_, at) => file(String(at)))]);
  const drain = async (bytes: Buffer, limits = {}) => {
    for await (const entry of readTree(from([bytes]), limits)) void entry;
  };
  await drain(many, { maxEntries: 21 });
  await expect(drain(many, { maxEntries: 20 })).rejects.toMatchObject({ code: "INVALID_STATE", message: "The tree has over 20 entries." });
  const deep = (levels: number) => written(Array.from({ length: levels }, (_, at) => directory(Array.from({ length: at }, () => "d").join("/"))));
  await drain(await deep(1024));
  await expect(deep(1025)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("MAX_TREE_DEPTH") as string });
  // A link to a file of which the guest said that it has one name only: those are not remembered.
  await expect(drain(await written([directory(""), file("a"), { ...directory("b"), type: "file", hardLinkTo: Buffer.from("a") }]))).rejects.toMatchObject({ code: "PROTOCOL" });
});

test("what no tree can have is refused before it is sent", async () => {
  const wrong: TreeEntry[][] = [
    [], [file("a")], [directory(""), file("../a")], [directory(""), file("/a")], [directory(""), file("a/b")], [directory(""), file("a\0")], [directory("", { mode: 0o10000 })],
    [directory("", { uid: -1 })], [directory("", { gid: 0xffff_ffff })], [directory("", { type: "link" })], [directory("", { type: "socket" as "file" })], [directory("", { target: Buffer.from("a") })],
    [directory(""), directory("d", { hardLinkTo: Buffer.from("a") })], [directory(""), file("x".repeat(256))],
  ];
  for (const entries of wrong) await expect(written(entries)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

test("60,000 mutated trees end in PROTOCOL or are trees, and nothing else", async () => {
  let seed = 4711;
  const random = (below: number) => ((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 8) % below;
  const good = await written([directory(""), file("a", [Buffer.from("xyz"), Buffer.alloc(5000)]), directory("d"), { ...directory("d/l"), type: "link", target: Buffer.from("../a") }, file("d/f", [Buffer.from("q")])]);
  const outcomes = new Set<string>();
  for (let round = 0; round < 60_000; round++) {
    const bytes = Buffer.from(good.subarray(0, random(4) === 0 ? random(good.length) + 1 : good.length));
    for (let i = random(3); i >= 0; i--) bytes[random(bytes.length)] = [random(256), 0, 0xff, 0x2f, 0x2e][random(5)]!;
    try {
      for await (const entry of readTree(from([bytes]), { maxContentBytes: 1e6 })) {
        expect(entry.path.toString("latin1").split("/").some((name) => name === ".." || name === ".")).toBe(false);
        if (entry.content !== undefined && random(2) === 0) await contentOf(entry);
      }
      outcomes.add("tree");
    } catch (error) {
      outcomes.add((error as { code: string }).code);
    }
  }
  expect([...outcomes].sort()).toEqual(["INVALID_STATE", "PROTOCOL", "tree"]);
});

test("a packed tree: totals, another number in the result, a failure in the middle, leaving early", async () => {
  const bytes = await written([directory(""), file("a", [Buffer.from("xyz")])]);
  const result = (entries: bigint) => encodeMessage([["BYTES_1", u64(BigInt(bytes.length))], ["ENTRIES", u64(entries)], ["SKIPPED", u64(3n)]]);
  const pack = async (...frames: Buffer[]) => {
    const { guest, channel } = await connected();
    const tree = channel.packTree("/a");
    for (const frame of frames) guest.say(frame);
    const names: string[] = [];
    try {
      for await (const { path } of tree) names.push(path.toString());
      return [names, await tree.totals];
    } catch (error) {
      await expect(tree.totals).rejects.toBe(error);
      return [names, (error as { code: string }).code];
    } finally {
      channel.close();
    }
  };
  const whole = [encodeFrame(FrameType.DATA_1, 1, bytes), encodeFrame(FrameType.END_1, 1)];
  expect(await pack(...whole, encodeFrame(FrameType.RESULT, 1, result(2n)))).toEqual([["", "a"], { entries: 2, contentBytes: 3n, skipped: 3 }]);
  expect(await pack(...whole, encodeFrame(FrameType.RESULT, 1, result(3n)))).toEqual([["", "a"], "PROTOCOL"]);
  const { guest, channel } = await connected();
  const tree = channel.packTree("/a");
  guest.say(whole[0]!);
  for await (const entry of tree) if (entry.type === "directory") break;
  await settled();
  expect(guest.frames.map(({ type }) => type)).toEqual([FrameType.REQUEST, FrameType.CANCEL]);
  await expect(tree.totals).rejects.toMatchObject({ code: "CANCELLED" });
  channel.close();
});
