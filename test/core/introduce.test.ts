import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { introduce } from "../../src/core/introduce.js";

beforeEach(() => void vi.useFakeTimers({ now: 1_900_000_000_000 }));
afterEach(() => void vi.useRealTimers());

const identity = { vmId: "vm-a", hostname: "vm-a", machineId: "0".repeat(32) };

/** A guest that takes each message after so many milliseconds, and whose answer takes 5. How often its clock was set, and how far behind it is in the end. */
async function introduced(...lateMs: number[]): Promise<{ set: number; behindMs: number }> {
  let [set, behindMs] = [0, 0];
  const { signal } = new AbortController();
  const take = async (until?: AbortSignal) => {
    expect(until).toBe(signal);
    const sent = Date.now();
    vi.setSystemTime(sent + (behindMs = lateMs[set++]!) + 5);
    return { clockNs: BigInt(sent) * 1_000_000n };
  };
  await introduce({ identify: (_, until) => take(until), setClock: take }, identity, signal);
  return { set, behindMs };
}

test("a clock that was set late is set again, and not for ever", async () => {
  expect(await introduced(10)).toEqual({ set: 1, behindMs: 10 });
  expect(await introduced(400, 20)).toEqual({ set: 2, behindMs: 20 });
  expect(await introduced(400, 300, 10)).toEqual({ set: 3, behindMs: 10 });
  expect(await introduced(400, 300, 200)).toEqual({ set: 3, behindMs: 200 });
});
