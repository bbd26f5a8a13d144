import { Readable } from "node:stream";
import { expect, test, vi } from "vitest";
import { contentOf, readBody } from "../../src/environments/registry/http.js";
import { atPace } from "../../src/environments/registry/pace.js";

/** Parts of so many bytes, each after so many milliseconds, read by somebody who takes `readerMs` over each. What was read, and what it ended with. */
async function read(parts: readonly (readonly [bytes: number, ms: number])[], readerMs = 0): Promise<{ read: number; error?: unknown; closed: boolean }> {
  let now = 1000;
  let closed = false;
  async function* body() {
    try {
      for (const [bytes, ms] of parts) {
        now += ms;
        yield Buffer.alloc(bytes);
      }
    } finally {
      closed = true;
    }
  }
  let total = 0;
  try {
    for await (const part of atPace(body(), "registry.example", () => now)) {
      total += part.length;
      now += readerMs;
    }
  } catch (error) {
    return { read: total, error, closed };
  }
  return { read: total, closed };
}

test("a byte a minute is given up after two minutes, with what to do", async () => {
  expect(await read([[1, 59_000], [1, 59_000], [1, 59_000], [1, 59_000]])).toEqual({
    read: 2,
    error: expect.objectContaining({
      code: "REGISTRY",
      message: "registry.example sent 3 bytes in 177 s, under the limit minBytes (65536 in 120 s).",
      hint: "Try again later: layers go on from what has come of them. Or name somebody else who has it: `pyro env pull NAME --source IMAGE`, PYRO_DOCKER_HUB_MIRROR.",
    }),
    closed: true,
  });
});

test("one byte less than it has to be is too slow, and that many are not, in each two minutes anew", async () => {
  expect(await read([[65_535, 120_000]])).toMatchObject({ read: 0, error: { message: "registry.example sent 65535 bytes in 120 s, under the limit minBytes (65536 in 120 s)." } });
  expect(await read([[65_536, 120_000], [30_000, 60_000], [35_536, 60_000]])).toEqual({ read: 131_072, closed: true });
  expect(await read([[10_000_000, 1], [1, 119_999], [1, 119_999], [1, 1]])).toMatchObject({ read: 10_000_002, error: { message: "registry.example sent 2 bytes in 120 s, under the limit minBytes (65536 in 120 s)." } });
});

test("what is small may take its time, up to that, and a reader that is slow costs nobody anything", async () => {
  expect(await read([[5, 60_000], [5, 59_999]])).toEqual({ read: 10, closed: true });
  expect(await read(Array.from({ length: 20 }, () => [1, 10] as const), 600_000)).toEqual({ read: 20, closed: true });
});

test("it holds for layers and for documents", async () => {
  let now = 0;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => (now += 70_000));
  try {
    const answer = () => ({ status: 200, header: () => undefined, body: Readable.from(["a", "b", "c"]), url: new URL("https://registry.example/v2/") });
    const layer = async () => {
      for await (const _part of contentOf(answer(), undefined)) continue;
    };
    const message = "registry.example sent 2 bytes in 140 s, under the limit minBytes (65536 in 120 s).";
    await expect(layer()).rejects.toMatchObject({ code: "REGISTRY", message });
    await expect(readBody(answer(), 1000, undefined)).rejects.toMatchObject({ code: "REGISTRY", message });
  } finally {
    clock.mockRestore();
  }
});
