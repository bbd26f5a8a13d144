/** Content that comes in pieces, from whoever breaks off. */
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { BrokenOff, fetchBlob } from "../../src/environments/images/blobs.js";
import { useTemporary } from "./fixtures.js";
import { sha256 } from "./image-maker.js";

vi.mock("../../src/base/deadline.js", async (original) => ({ ...(await original<typeof import("../../src/base/deadline.js")>()), sleep: async () => {} }));

const temporary = useTemporary();

test("who begins anew each time is given up, although each time something comes", async () => {
  process.env["XDG_CACHE_HOME"] = join(temporary.path(), "cache");
  const data = Buffer.alloc(1 << 20, "x");
  const bytes = [300_000, 100_000, 300_000, 100_000, 300_000, 100_000, 300_000, 100_000];
  let tries = 0;
  const content = async function* () {
    const size = bytes[tries++];
    if (size === undefined) throw new Error("one try too many");
    yield data.subarray(0, size);
    throw new BrokenOff("broken off");
  };
  await expect(fetchBlob({ mediaType: "", digest: sha256(data), sizeBytes: data.length }, async () => ({ offset: 0, content: content() }))).rejects.toThrow("broken off");
  expect(tries).toBe(6);
});
