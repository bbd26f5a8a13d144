import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
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

test("a lock that can't be made says why, and what to do", async () => {
  const wanted = { code: "DENIED", message: expect.stringMatching(/^The lock \/sys\/pyro\.lock could not be taken: (Permission denied|Read-only file system|Operation not permitted)\.$/), hint: "Set XDG_CACHE_HOME and XDG_STATE_HOME to directories that you can write to." };
  await expect(takeLock("/sys/pyro.lock")).rejects.toMatchObject(wanted);
  await expect(tryLock("/sys/pyro.lock")).rejects.toMatchObject(wanted);
  await expect(takeLock("/sys/nowhere/pyro.lock")).rejects.toMatchObject({ code: "DENIED", hint: wanted.hint });
  await expect(takeLock("/proc/self/cmdline/x")).rejects.toMatchObject({ code: "DENIED", hint: wanted.hint });
});

test("the last thing is done when the lock is released, while nobody else has it", async () => {
  const file = join(directory, "e.lock");
  const tree = join(directory, "tree");
  mkdirSync(tree);
  const lock = await takeLock(file, { last: ["/bin/sh", "-c", 'sleep 0.2; rmdir "$1"', "sh", tree] });
  const next = takeLock(file).then((each) => (expect(existsSync(tree)).toBe(false), each));
  expect(existsSync(tree)).toBe(true);
  await lock.release();
  expect(existsSync(tree)).toBe(false);
  await (await next).release();
});

test("the last thing is done after a holder that was killed, once those in the way have ended too", async () => {
  const file = join(directory, "f.lock");
  const tree = join(directory, "tree");
  // It does not try for ever: tried again where we stood still for that long.
  for (let tries = 0; tries === 0 || (existsSync(tree) && tries < 5); tries++) await removed(file, tree);
  expect(existsSync(tree)).toBe(false);
});

async function removed(file: string, tree: string): Promise<void> {
  mkdirSync(tree, { recursive: true });
  writeFileSync(join(tree, "in the way"), "");
  const arguments_ = ["keep", "--lifeline", "3", "--grace-ms", "60000", "--", nativeProgram("pyro-keeper"), "lock", "--", file, "/bin/rmdir", tree];
  const keeper = spawn(nativeProgram("pyro-keeper"), arguments_, { stdio: ["pipe", "pipe", "ignore", "pipe"] });
  await new Promise((resolve) => keeper.stdout!.once("data", resolve));
  keeper.stdin!.destroy();
  (keeper.stdio[3] as Socket).destroy(); // as the death of its holder does
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(existsSync(tree)).toBe(true);
  rmSync(join(tree, "in the way"));
  await new Promise((resolve) => keeper.once("close", resolve));
}

test("a lock that is no longer wanted when it comes is not held", async () => {
  const file = join(directory, "unwanted");
  for (let round = 0; round < 5; round++) await expect(takeLock(file, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "CANCELLED" });
  const lock = await tryLock(file);
  expect(lock).toBeDefined();
  await lock!.release();
});
