import { expect, test } from "vitest";
import { exactWords } from "../../src/cli/exact-words.js";

const line = (...words: Buffer[]) => () => Buffer.concat(words.flatMap((word) => [word, Buffer.of(0)]));
const bad = Buffer.from([0x61, 0xff, 0xfe, 0x62]);

test("words that Node could decode stay as they are, and nothing is read for them", () => {
  expect(exactWords(["a", "é", ""], () => expect.unreachable())).toEqual(["a", "é", ""]);
});

test("a word that is not UTF-8 is handed on byte for byte; a real U+FFFD stays", () => {
  const words = ["cat", bad.toString("utf8"), "\ufffd", ""];
  expect(exactWords(words, line(Buffer.from("node"), Buffer.from("cat"), bad, Buffer.from("\ufffd"), Buffer.from("")))).toEqual(["cat", bad, "\ufffd", ""]);
});

test("a command line that says something else is not believed", () => {
  expect(exactWords(["a\ufffdb"], line(Buffer.from("other")))).toEqual(["a\ufffdb"]);
});
