import { expect, test } from "vitest";
import { addBytes, checksumOf } from "../../src/net/wire/checksum.js";
import { seeded } from "../environments/fixtures.js";

test("the example of RFC 1071, 3", () => {
  expect(checksumOf(addBytes(Buffer.from("0001f203f4f5f6f7", "hex"), 0, 8))).toBe(0x220d);
});

test("words of the machine give the same as bytes, wherever they begin and end", () => {
  const random = seeded(1);
  const bytes = Buffer.from(Array.from({ length: 70_000 }, () => random(256)));
  const plain = (from: number, to: number) => {
    let sum = 0;
    for (let at = from; at < to; at++) sum += (at - from) % 2 === 0 ? bytes[at]! << 8 : bytes[at]!;
    return checksumOf(sum);
  };
  for (const offset of [0, 1]) {
    const view = bytes.subarray(offset);
    for (let round = 0; round < 2000; round++) {
      const from = random(50);
      const to = from + random(round < 1990 ? 200 : 69_000);
      expect(checksumOf(addBytes(view, from, to))).toBe(plain(from + offset, to + offset));
    }
  }
  const full = Buffer.alloc(69_632, 0xff);
  expect(checksumOf(addBytes(full, 0, full.length))).toBe(0);
});
