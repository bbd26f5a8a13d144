/** A file beyond 4 GiB: its bytes are really read and written, but those of its zeros never take room on this disk, and are counted where they would be hashed. */
import { open, rm, stat } from "node:fs/promises";
import { expect, test, vi } from "vitest";
import { writeErofs } from "../../src/environments/erofs.js";
import { readTar } from "../../src/environments/tar.js";
import { useDirectory } from "./erofs-check.js";
import { header, padded, theEnd } from "./tar-maker.js";

const zeros = vi.hoisted(() => Buffer.alloc(1 << 20));
// What is written is what the writer says, only that whole buffers of zeros become holes.
vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  return {
    ...real,
    open: async (...args: Parameters<typeof real.open>) => {
      const file = await real.open(...args);
      const write = file.write.bind(file) as (data: Uint8Array, at: number, length: number, position: number) => Promise<{ bytesWritten: number }>;
      const sparse = async (data: Uint8Array, at: number, length: number, position: number) => (length === zeros.length && zeros.equals(data.subarray(at, at + length)) ? { bytesWritten: length } : write(data, at, length, position));
      return Object.assign(file, { write: sparse });
    },
  };
});

// SHA-256 of 4 GiB is most of the time that this would take, and nothing that this is about.
const hashed = vi.hoisted(() => ({ bytes: 0 }));
vi.mock("node:crypto", async (original) => {
  const counting = { update: (data: Uint8Array) => ((hashed.bytes += data.length), counting), digest: () => "0".repeat(64) };
  return { ...(await original<typeof import("node:crypto")>()), createHash: () => counting };
});

const directory = useDirectory();
const sizeBytes = 2 ** 32 + 5000;
/** Where the content is not zero. */
const marks: [number, string][] = [[0, "begin"], [2 ** 31 - 2, "two gigabytes"], [2 ** 32 - 3, "across"], [sizeBytes - 3, "end"]];

async function* archive(): AsyncGenerator<Uint8Array> {
  yield header({ name: "big", size: sizeBytes, patch: (block) => void block.write(`${sizeBytes.toString(8).padStart(11, "0")}\0`, 124, "latin1") });
  let at = 0;
  for (const [offset, text] of marks) {
    for (; at < offset; at += Math.min(zeros.length, offset - at)) yield zeros.subarray(0, Math.min(zeros.length, offset - at));
    yield Buffer.from(text);
    at += text.length;
  }
  yield Buffer.alloc(-sizeBytes & 511);
  yield header({ name: "small", data: "behind it" });
  yield padded(Buffer.from("behind it"));
  yield theEnd;
}

test("a file of more than 4 GiB has its size and its bytes, and so has what comes behind it", async () => {
  const path = directory.newName();
  const result = await writeErofs(readTar(archive()), path);
  expect(result.inodes).toBe(3);
  expect((await stat(path)).size).toBe(result.sizeBytes);
  expect(hashed.bytes).toBe(result.sizeBytes);
  const file = await open(path, "r");
  const read = async (position: number, length: number) => (await file.read(Buffer.alloc(length), 0, length, position)).buffer;
  // The format's own words (erofs_fs.h): super block at 1024, root inode in the first block, extended inodes of 64 bytes.
  const metadata = (await read(1024 + 40, 4)).readUInt32LE() * 4096;
  const root = metadata + (await read(1024 + 14, 2)).readUInt16LE() * 32;
  const names = await read((await read(root + 16, 4)).readUInt32LE() * 4096, Number((await read(root + 8, 8)).readBigUInt64LE()));
  const inodeOf = (name: string) => {
    const count = names.readUInt16LE(8) / 12;
    for (let index = 0; index < count; index++) {
      const from = names.readUInt16LE(index * 12 + 8);
      if (names.toString("latin1", from, from + name.length) === name) return metadata + Number(names.readBigUInt64LE(index * 12)) * 32;
    }
    throw new Error(`no ${name}`);
  };
  const big = inodeOf("big");
  expect(Number((await read(big + 8, 8)).readBigUInt64LE())).toBe(4_294_972_296);
  const start = (await read(big + 16, 4)).readUInt32LE() * 4096;
  for (const [offset, text] of marks) expect((await read(start + offset, text.length)).toString()).toBe(text);
  expect((await read(start + 2 ** 32 + 3, 100)).equals(zeros.subarray(0, 100))).toBe(true);
  expect((await read((await read(inodeOf("small") + 16, 4)).readUInt32LE() * 4096, 9)).toString()).toBe("behind it");
  await file.close();
  expect((await stat(path)).blocks * 512).toBeLessThan(64 << 20);
  await rm(path);
});
