import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";

const guest = new URL("../../guest", import.meta.url).pathname;

test("the guest's codec, messages and users, with all vectors, under sanitizers", () => {
  const output = execFileSync("make", ["-s", "-C", guest, "test"], { encoding: "utf8" });
  expect(output).toMatch(/vectors, 0 failures/);
});

test("the guest's parsers take 50,000 generated inputs", () => {
  expect(execFileSync("make", ["-s", "-C", guest, "fuzz", "FUZZ_RUNS=50000"], { encoding: "utf8" })).toContain("50000 inputs");
});
