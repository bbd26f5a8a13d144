import { existsSync, rmSync } from "node:fs";
import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { fsck, make, useDirectory } from "./erofs-check.js";
import { readErofs } from "./erofs-reader.js";
import { archive, header, paxHeader, sign } from "./tar-maker.js";

const directory = useDirectory();

/** Deterministic: xorshift32. */
function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const seeds: Buffer[] = [
  archive({ name: "a", data: "hello" }, { name: "d/", type: "5" }, { name: "d/b", type: "2", link: "a" }, { name: "c", type: "1", link: "a" }, { name: "n", type: "3", device: [1, 3] }, { name: "p", type: "6" }),
  archive({ name: "x", data: "y".repeat(5000), pax: { path: "some/long/path", mtime: "-1.5", "SCHILY.xattr.user.a": "value", "SCHILY.acl.access": "user::rwx,group::r-x,other::r-x" } }, paxHeader({ uid: "5" }, "g"), { name: "z" }),
  archive({ name: "s", data: "2\n4096\n512\n8192\n512\n".padEnd(512, "\0") + "A".repeat(1024), pax: { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "real", "GNU.sparse.realsize": "1000000" } }),
  archive({ name: "s", data: "A".repeat(1024), pax: { "GNU.sparse.size": "1000000", "GNU.sparse.map": "0,512,9000,512" } }),
  archive(
    { name: "././@LongLink", type: "L", magic: "gnu", data: "n/".repeat(80) + "f\0" }, { name: "n", magic: "gnu", data: "1" },
    { name: "S", type: "S", magic: "gnu", data: "B".repeat(600), patch: (block) => {
      ["00000000000", "00000001000", "00000020000", "00000000130"].forEach((text, index) => block.write(text, 386 + index * 12, "latin1"));
      block.write("00000040000", 483, "latin1");
    } },
  ),
];

/** Values that break things more often than others. */
const nasty = ["99999999999", "77777777777", "00000000000", "-1", "\x80\0\0\0\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff", "../..", "/", ".", "\0", "9".repeat(30), "1 a=", ",", "\n"];

function mutate(seed: Buffer, next: (below: number) => number): Buffer {
  let tar: Buffer = Buffer.from(seed);
  for (let change = 1 + next(4); change > 0; change--) {
    const at = next(tar.length);
    switch (next(7)) {
      case 0:
        tar[at] = next(256);
        break;
      case 1:
        tar[at] = tar[at]! ^ (1 << next(8));
        break;
      case 2:
        tar.write(nasty[next(nasty.length)]!, at, "latin1");
        break;
      case 3:
        tar = tar.subarray(0, at);
        break;
      case 4: { // a block twice
        const from = at & ~511;
        tar = Buffer.concat([tar.subarray(0, from + 512), tar.subarray(from)]);
        break;
      }
      case 5: { // a block away
        const from = at & ~511;
        tar = Buffer.concat([tar.subarray(0, from), tar.subarray(from + 512)]);
        break;
      }
      case 6: // a field of a header
        tar.write(nasty[next(nasty.length)]!, Math.min((at & ~511) + [0, 100, 108, 116, 124, 136, 156, 157, 257, 329, 345, 386, 482][next(13)]!, tar.length - 1), "latin1");
        break;
    }
    if (tar.length === 0) return tar;
  }
  // Without right checksums hardly anything would get past the first check.
  if (next(10) > 0) for (let at = 0; at + 512 <= tar.length; at += 512) if (looksLikeHeader(tar, at)) sign(tar.subarray(at, at + 512));
  return tar;
}

function looksLikeHeader(tar: Buffer, at: number): boolean {
  return tar.toString("latin1", at + 257, at + 262) === "ustar";
}

test("mutated archives: an image or a PyroError, never anything else", async () => {
  const next = random(20_240_601);
  let images = 0;
  let refusals = 0;
  for (let round = 0; round < 2000; round++) {
    const tar = mutate(seeds[round % seeds.length]!, next);
    const path = directory.newName();
    try {
      await make(path, tar, { chunkBytes: 1 + next(2000), limits: { maxImageBytes: 1 << 24, maxMetadataBytes: 1 << 22 } });
      images++;
      readErofs(path);
      if (images % 20 === 0) await fsck(path);
      rmSync(path);
    } catch (error) {
      if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw new Error(`round ${round}`, { cause: error });
      expect(existsSync(path)).toBe(false);
      refusals++;
    }
  }
  // Both ways must have been gone often, or the mutations test nothing.
  expect(images).toBeGreaterThan(500);
  expect(refusals).toBeGreaterThan(500);
});

test("random bytes", async () => {
  const next = random(7);
  for (let round = 0; round < 300; round++) {
    const noise = Buffer.from(Array.from({ length: next(3000) }, () => next(256)));
    const tar = round % 2 === 0 ? noise : Buffer.concat([header({ name: "x", type: "x", size: noise.length }), noise, Buffer.alloc(2048)]);
    await expect(make(directory.newName(), tar)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID" });
  }
});
