import { expect, test } from "vitest";
import { harmless, harmlessLine, isHarmlessLine } from "../../src/base/harmless.js";

test("what a terminal acts upon, or what hides text, is written out; all else stays", () => {
  expect(harmless("\x1b[2J\x07\r\x00")).toBe("\\x1b[2J\\x07\\x0d\\x00");
  expect(harmless("\x7f \x80 \x9b31m \x9f")).toBe("\\x7f \\x80 \\x9b31m \\x9f");
  expect(harmless("a\u202eb\u2066c\u2069\u200e\u200f\u061c")).toBe("a\\u202eb\\u2066c\\u2069\\u200e\\u200f\\u061c");
  expect(harmless("\u200ba\ufeff\u2060")).toBe("\\u200ba\\ufeff\\u2060");
  expect(harmless("\u2028\u2029")).toBe("\\u2028\\u2029");
  expect(harmless("\ud800x\udc00")).toBe("\\ud800x\\udc00");
  expect(harmless("two\nlines\tgrüße 🦀 \u00a0")).toBe("two\nlines\tgrüße 🦀 \u00a0");
});

test("one line of it, cut", () => {
  expect(harmlessLine("a\nb\tc\x1b", 100)).toBe("a\\nb\\tc\\x1b");
  expect(harmlessLine("abcdef", 3)).toBe("abc…");
  expect(harmlessLine("ab🦀", 3)).toBe("ab\\ud83e…");
  expect([isHarmlessLine("grüße"), isHarmlessLine("a\nb"), isHarmlessLine("a\u009b")]).toEqual([true, false, false]);
});
