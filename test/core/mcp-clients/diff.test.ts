import { expect, test } from "vitest";
import { diff } from "../../../src/core/mcp-clients/diff.js";

test("three lines around a change", () => {
  expect(diff("f", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\n5\nx\ny\n7\n8\n9\n")).toEqual(["--- f", "+++ f", "@@ -3,7 +3,8 @@", " 3", " 4", " 5", "-6", "+x", "+y", " 7", " 8", " 9"]);
});

test("a file that comes, one that goes, and a last line without an end", () => {
  expect(diff("f", undefined, "a\n")).toEqual(["--- /dev/null", "+++ f", "@@ -0,0 +1,1 @@", "+a"]);
  expect(diff("f", "a\n", undefined)).toEqual(["--- f", "+++ /dev/null", "@@ -1,1 +0,0 @@", "-a"]);
  expect(diff("f", "a", "a\r\n")).toEqual(["--- f", "+++ f", "@@ -1,1 +1,1 @@", "-a\n\\ No newline at end of file", "+a"]);
});
