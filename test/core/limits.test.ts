import { expect, test } from "vitest";
import { checkLimit, type LimitName } from "../../src/core/limits.js";
import { PyroError } from "../../src/base/error.js";

const table: [LimitName, number, number, number][] = [
  ["vcpuCount", 1, 32, 1],
  ["memMib", 128, 65_536, 1024],
  ["timeoutSeconds", 1, 86_400, 30],
  ["ttlSeconds", 1, 604_800, 600],
  ["captureBytes", 1024, 67_108_864, 1_048_576],
];

test.each(table)("%s is from %i to %i, %i where it is left out", (name, min, max, fallback) => {
  expect(checkLimit(name, undefined)).toBe(fallback);
  expect(checkLimit(name, min)).toBe(min);
  expect(checkLimit(name, max)).toBe(max);
  for (const bad of [min - 1, max + 1, min + 0.5, Number.NaN, Number.POSITIVE_INFINITY]) expect(() => checkLimit(name, bad)).toThrow(PyroError);
});

test("the message names the field, what was given and the range", () => {
  expect(() => checkLimit("memMib", 64)).toThrow("mem_mib is 64; it is a whole number from 128 to 65536.");
});
