import { expect, test } from "vitest";
import { formatUntil } from "../../src/cli/render.js";

test.each([
  ["2026-01-01T00:00:00.999Z", "in 0 s"],
  ["2025-12-31T23:00:00Z", "in 0 s"],
  ["2026-01-01T00:00:59Z", "in 59 s"],
  ["2026-01-01T00:01:00Z", "in 1 min"],
  ["2026-01-01T00:59:59Z", "in 59 min"],
  ["2026-01-01T01:00:00Z", "in 1 h"],
  ["2026-01-02T23:59:59Z", "in 47 h"],
  ["2026-01-08T00:00:00Z", "in 7 d"],
])("%s is %s", (time, text) => {
  expect(formatUntil(time, Date.UTC(2026, 0, 1))).toBe(text);
});
