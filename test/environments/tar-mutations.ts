/** Archives of every kind that is read, and ways to spoil them. */
import { archive, paxHeader, sign } from "./tar-maker.js";

/** Deterministic: xorshift32. */
export function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

export const tarSeeds: Buffer[] = [
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

/** An archive with a few changes, most of the time with checksums that hold. */
export function mutateTar(seed: Buffer, next: (below: number) => number): Buffer {
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
