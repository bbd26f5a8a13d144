import { existsSync, rmSync } from "node:fs";
import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { fsck, make, useDirectory } from "./erofs-check.js";
import { readErofs } from "./erofs-reader.js";
import { header } from "./tar-maker.js";
import { mutateTar as mutate, random, tarSeeds as seeds } from "./tar-mutations.js";

const directory = useDirectory();

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
