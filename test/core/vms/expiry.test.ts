import { expect, test } from "vitest";
import { leftMs, onThisBoot } from "../../../src/core/vms/expiry.js";

const created = Date.UTC(2026, 10, 24, 12, 0, 0);
const record = { ttlSeconds: 600, expiresAt: "2026-11-24T12:10:00.000Z", hostBootId: "a", expiresAtUptimeMs: 5_600_000 };
const hour = 3_600_000;

test("within a boot nothing but the uptime counts, wherever the wall clock jumps", () => {
  for (const wallMs of [0, created - 1000 * hour, created, created + 1000 * hour, Date.UTC(9999, 0)]) {
    expect(leftMs(record, { bootId: "a", uptimeMs: 5_000_000, wallMs })).toBe(600_000);
    expect(leftMs(record, { bootId: "a", uptimeMs: 5_599_999, wallMs })).toBe(1);
    expect(leftMs(record, { bootId: "a", uptimeMs: 5_600_000, wallMs })).toBe(0);
    expect(leftMs(record, { bootId: "a", uptimeMs: 9_000_000, wallMs })).toBe(-3_400_000);
  }
});

test("after another boot the wall clock is asked, and gives no more than a whole time to live", () => {
  const after = (wallMs: number) => leftMs(record, { bootId: "b", uptimeMs: 10_000, wallMs });
  expect(after(created + 60_000)).toBe(540_000);
  expect(after(created + 600_000)).toBe(0);
  expect(after(created + hour)).toBe(-3_000_000);
  expect(after(0)).toBe(600_000); // a clock without a battery
  expect(after(created - 5 * hour)).toBe(600_000);
});

test("an uptime that began anew in the same boot, as a container's may, counts as another boot", () => {
  expect(leftMs(record, { bootId: "a", uptimeMs: 10_000, wallMs: created + 60_000 })).toBe(540_000);
  expect(onThisBoot(record, { bootId: "a", uptimeMs: 10_000, wallMs: created + 60_000 })).toEqual({ ...record, expiresAtUptimeMs: 550_000 });
});

test("from then on this boot's clock counts, and jumps mean nothing again", () => {
  const moved = onThisBoot(record, { bootId: "b", uptimeMs: 10_000, wallMs: created + 60_000 });
  expect(moved).toEqual({ ttlSeconds: 600, expiresAt: "2026-11-24T12:10:00.000Z", hostBootId: "b", expiresAtUptimeMs: 550_000 });
  for (const wallMs of [0, created + 1000 * hour]) expect(leftMs(moved, { bootId: "b", uptimeMs: 549_000, wallMs })).toBe(1000);
  expect(onThisBoot(moved, { bootId: "b", uptimeMs: 20_000, wallMs: 0 })).toBe(moved);
});

test("a clock that stands in the past gives no more than one time to live for each boot", () => {
  expect(onThisBoot(record, { bootId: "b", uptimeMs: 10_000, wallMs: 0 })).toMatchObject({ hostBootId: "b", expiresAtUptimeMs: 610_000 });
});
