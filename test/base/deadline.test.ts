// A program may have one signal for all that it ever does with VMs: what waits for it must leave nothing behind in it.
import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { follow, sleep, whenAborted, withDeadline } from "../../src/base/deadline.js";
import { PyroError } from "../../src/base/error.js";

/** What AbortSignal.any leaves; Node has no other way to see it. */
function dependents(signal: AbortSignal): number {
  const key = Object.getOwnPropertySymbols(signal).find((each) => each.description === "kDependantSignals");
  return key === undefined ? 0 : ((signal as unknown as Record<symbol, Set<unknown> | undefined>)[key]?.size ?? 0);
}

test("a thousand waits with one signal leave nothing in it: a signal of AbortSignal.any that somebody listens to is never let go of", async () => {
  const { signal } = new AbortController();
  const warnings: string[] = [];
  const onWarning = (warning: Error) => void warnings.push(warning.name);
  process.on("warning", onWarning);
  await Promise.all(Array.from({ length: 500 }, () => withDeadline(sleep(1, signal), 60_000, "it", signal)));
  for (let n = 0; n < 500; n++) follow(signal).abort();
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", onWarning);
  expect({ listeners: getEventListeners(signal, "abort").length, dependents: dependents(signal), warnings }).toEqual({ listeners: 0, dependents: 0, warnings: [] });
});

test("all who wait are called once, and nobody who does not any more", () => {
  const controller = new AbortController();
  const called: number[] = [];
  const [, forget] = [0, 1, 2].map((n) => whenAborted(controller.signal, () => called.push(n)));
  forget!();
  controller.abort();
  controller.abort();
  whenAborted(controller.signal, () => called.push(3));
  expect(called).toEqual([0, 2]);
});

test("who waits again after nobody did is called, as is who comes while others go", () => {
  const controller = new AbortController();
  const called: number[] = [];
  const first = whenAborted(controller.signal, () => called.push(0));
  first();
  const second = whenAborted(controller.signal, () => called.push(1));
  first(); // once more does nothing to those who wait now
  const third = whenAborted(controller.signal, () => third());
  whenAborted(controller.signal, () => called.push(2));
  second();
  expect(getEventListeners(controller.signal, "abort")).toHaveLength(1);
  controller.abort();
  expect([called, getEventListeners(controller.signal, "abort").length]).toEqual([[2], 0]);
});

test("a following signal has the other's reason, now and later; its own end is its own", () => {
  const reason = new PyroError("TIMEOUT", "late");
  const [parent, other] = [new AbortController(), new AbortController()];
  const [before, own] = [follow(parent.signal), follow(other.signal)];
  own.abort("enough");
  parent.abort(reason);
  other.abort();
  expect([before.signal.reason, follow(parent.signal).signal.reason, own.signal.reason]).toEqual([reason, reason, "enough"]);
});
