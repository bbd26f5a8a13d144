import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { findPayload } from "../../src/environments/bzimage.js";
import { makeBzImage, seeded } from "./fixtures.js";

const lz4 = Buffer.from(`02214c180c000000${"00".repeat(12)}`, "hex");

test("the compressed kernel is between the code and the size that the build noted down", () => {
  const image = makeBzImage(lz4, 8192);
  expect(image.length).toBe(1064);
  expect(findPayload(image)).toEqual({ compressed: lz4, unpackedBytes: 8192 });
});

test("a set-up of 0 sectors means 4", () => {
  const image = Buffer.concat([makeBzImage(lz4, 8192), Buffer.alloc(4096)]);
  image[0x1f1] = 0;
  lz4.copy(image, 5 * 512 + 16);
  image.writeUInt32LE(4096, 5 * 512 + 16 + lz4.length);
  expect(findPayload(image)).toEqual({ compressed: lz4, unpackedBytes: 4096 });
});

const broken: [string, (image: Buffer) => Buffer][] = [
  ["it has 10 bytes", (image) => image.subarray(0, 10)],
  ["there is no boot header", (image) => (image.writeUInt32LE(1, 0x202), image)],
  ["its boot protocol is 0x207", (image) => (image.writeUInt16LE(0x207, 0x206), image)],
  ["is not inside its 1064 bytes", (image) => (image.writeUInt32LE(0xffffffff, 0x248), image)],
  ["is not inside its 1064 bytes", (image) => (image.writeUInt32LE(0xffffffff, 0x24c), image)],
  ["is not inside its 1064 bytes", (image) => (image.writeUInt32LE(3, 0x24c), image)],
  ["is not inside its 1063 bytes", (image) => image.subarray(0, -1)],
  ["not compressed with LZ4 (it begins with 0x8088b1f)", (image) => (image.writeUInt32LE(0x08088b1f, 1040), image)],
  ["its kernel has 4294967295 bytes unpacked", (image) => (image.writeUInt32LE(0xffffffff, 1060), image)],
  ["its kernel has 1 bytes unpacked", (image) => (image.writeUInt32LE(1, 1060), image)],
];

test.each(broken)("refused: %s", (why, change) => {
  expect(() => findPayload(change(makeBzImage(lz4, 8192)))).toThrow(expect.objectContaining({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining(why) }));
});

test("any bytes changed: found, or refused as ENVIRONMENT_INVALID", () => {
  const random = seeded(2);
  for (let round = 0; round < 20_000; round++) {
    const image = makeBzImage(lz4, 8192);
    for (let change = 0; change <= random(6); change++) image[0x1f1 + random(0x60)] = random(256);
    try {
      const { compressed } = findPayload(image);
      expect(compressed.length).toBeLessThan(1064);
    } catch (error) {
      if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
    }
  }
});
