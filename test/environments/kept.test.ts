import { expect, test } from "vitest";
import { sleep } from "../../src/base/deadline.js";
import { readWhole, runKept } from "../../src/environments/kept.js";

test("output that is read late, after the program has ended, is not lost", async () => {
  const { exit, result } = await runKept("printf", ["hello"], { timeoutMs: 60_000 }, async (stdout) => {
    await sleep(300);
    return (await readWhole(stdout, 100, "the output")).toString();
  });
  expect(result).toBe("hello");
  expect(exit.code).toBe(0);
});

test("more output than a pipe holds waits for its reader", async () => {
  const { result } = await runKept("head", ["-c", "3000000", "/dev/zero"], { timeoutMs: 60_000 }, async (stdout) => {
    await sleep(100);
    return (await readWhole(stdout, 4_000_000, "the output")).length;
  });
  expect(result).toBe(3_000_000);
});

test("a reader that fails ends the program", async () => {
  const { failure } = await runKept("yes", [], { timeoutMs: 60_000 }, async () => {
    throw new Error("no more");
  });
  expect(failure).toMatchObject({ message: "no more" });
});
