import { expect, test } from "vitest";
import { PyroError, toPyroError } from "../../src/base/error.js";
import { printJson, toJson } from "../../src/base/json.js";
import { sleep, withDeadline } from "../../src/base/deadline.js";

test.each([
  ["ENOSPC", "DISK_FULL"],
  ["EDQUOT", "DISK_FULL"],
  ["EACCES", "DENIED"],
  ["EROFS", "DENIED"],
  ["ENOTDIR", "DENIED"],
  ["ELOOP", "DENIED"],
  ["ENAMETOOLONG", "DENIED"],
  ["EMFILE", "HOST_MISSING"],
  ["ENFILE", "HOST_MISSING"],
  ["ENOMEM", "HOST_MISSING"],
  ["EIO", "INTERNAL"],
])("%s becomes %s", (errno, code) => {
  expect(toPyroError(Object.assign(new Error("x"), { code: errno })).code).toBe(code);
});

test("a PyroError stays itself; other values are INTERNAL", () => {
  const error = new PyroError("TIMEOUT", "late", { hint: "wait" });
  expect(toPyroError(error)).toBe(error);
  expect(toPyroError("text")).toMatchObject({ code: "INTERNAL", message: "text" });
  expect(JSON.stringify(error)).toBe('{"code":"TIMEOUT","message":"late","hint":"wait"}');
});

test("records cross the process boundary in snake_case, sorted, without undefined", () => {
  expect(printJson({ vmId: "a", bootMs: 1, last: undefined, nested: [{ memMib: 2 }] })).toBe('{\n  "boot_ms": 1,\n  "nested": [\n    {\n      "mem_mib": 2\n    }\n  ],\n  "vm_id": "a"\n}\n');
  expect(toJson({ at: new Date(0), big: 5n })).toEqual({ at: "1970-01-01T00:00:00.000Z", big: 5 });
});

test("deadlines name what was waited for, and let go of their timers", async () => {
  await expect(withDeadline(sleep(60_000), 10, "the guest's hello")).rejects.toMatchObject({ code: "TIMEOUT", message: "the guest's hello did not happen within 0.01 s." });
  expect(await withDeadline(Promise.resolve(5), 60_000, "nothing")).toBe(5);
  const controller = new AbortController();
  const slept = sleep(60_000, controller.signal);
  controller.abort();
  await expect(slept).rejects.toMatchObject({ code: "CANCELLED" });
});
