import { expect, test } from "vitest";
import { nearest } from "../../src/base/nearest.js";

const names = ["debian:12", "debian:12-base", "debian:12-build"];

test.each([
  ["debian:12-bsae", ["debian:12-base", "debian:12-build"]],
  ["debain:12", ["debian:12"]],
  ["debian", ["debian:12", "debian:12-base", "debian:12-build"]],
  ["DEBIAN:12-BUILD", ["debian:12-build", "debian:12-base"]],
  ["ubuntu:24", []],
  ["", []],
])("%s", (word, expected) => {
  expect(nearest(word, names)).toEqual(expected);
});

test("a swap of two letters is one slip", () => {
  expect(nearest("rnu", ["run"])).toEqual(["run"]);
  expect(nearest("unr", ["run"])).toEqual([]);
});

test("what is a candidate twice is offered once", () => {
  expect(nearest("debain:12", ["debian:12", "debian:12-base", "debian:12"])).toEqual(["debian:12"]);
});

test("a word without end costs no more than a long one", () => {
  expect(nearest("x".repeat(10_000_000), names)).toEqual([]);
});
