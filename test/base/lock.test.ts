import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { takeLock, tryLock } from "../../src/base/lock.js";
import { nativeProgram } from "../../src/base/paths.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-lock-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("one holder at a time; the next waits, is told so, and gets it", async () => {
  const file = join(directory, "deep", "a.lock");
  const first = await takeLock(file);
  expect(await tryLock(file)).toBeUndefined();
  let waits = 0;
  const order: string[] = [];
  const second = takeLock(file, { onWait: () => waits++ }).then((lock) => {
    order.push("second");
    return lock;
  });
  while (waits === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  order.push("release");
  await first.release();
  await (await second).release();
  expect(order).toEqual(["release", "second"]);
  expect(waits).toBe(1);
});

test("shared locks are held together and keep an exclusive one out", async () => {
  const file = join(directory, "b.lock");
  const [one, two] = [await takeLock(file, { shared: true }), await takeLock(file, { shared: true })];
  expect(await tryLock(file)).toBeUndefined();
  await one.release();
  expect(await tryLock(file)).toBeUndefined();
  await two.release();
  const alone = await tryLock(file);
  expect(alone).toBeDefined();
  await alone!.release();
});

test("waiting can be given up", async () => {
  const file = join(directory, "c.lock");
  const first = await takeLock(file);
  const controller = new AbortController();
  const second = takeLock(file, { signal: controller.signal, onWait: () => controller.abort() });
  await expect(second).rejects.toMatchObject({ code: "CANCELLED" });
  await first.release();
});

test("a lock ends with its holder, however that ended", async () => {
  const file = join(directory, "d.lock");
  const holder = spawn(nativeProgram("pyro-keeper"), ["lock", "--", file], { stdio: ["pipe", "pipe", "ignore"] });
  await new Promise((resolve) => holder.stdout.once("data", resolve));
  expect(await tryLock(file)).toBeUndefined();
  holder.kill("SIGKILL");
  await new Promise((resolve) => holder.once("close", resolve));
  const lock = await tryLock(file);
  expect(lock).toBeDefined();
  await lock!.release();
});
