import { expect, it } from "vitest";
import { ConsoleLog, harmless, maxConsoleBytes } from "../../src/vmm/console.js";

it.each([
  ["plain\r\ntext\twith ünï\n", "plain\ntext\twith ünï\n"],
  ["\u001b[1;31mred\u001b[0m", "red"],
  ["\u001b]0;title\u0007", "\\x1b]0;title\\x07"],
  ["a\rb\b\u007f\u0000", "a\\x0db\\x08\\x7f\\x00"],
  ["\u009b31m", "\\x9b31m"],
  ["\u202egnp.exe", "\\u202egnp.exe"],
  ["\u001b\u001b[0m[2J", "\\x1b[2J"],
])("makes %j harmless", (text, expected) => {
  expect(harmless(Buffer.from(text))).toBe(expected);
});

it("replaces what is not UTF-8", () => {
  expect(harmless(Buffer.from([0x61, 0xff, 0xc3]))).toBe("a\ufffd\ufffd");
});

it("lets no control character through, whatever comes", () => {
  let seed = 42;
  const random = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) >>> 16;
  for (let round = 0; round < 500; round++) {
    const bytes = Buffer.from(Array.from({ length: random() % 200 }, () => (random() % 3 === 0 ? [27, 91, 13, 10, 155, 194][random() % 6]! : random() % 256)));
    expect(harmless(bytes)).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
  }
});

it("keeps the end of the last lines", () => {
  const log = new ConsoleLog();
  for (let line = 0; line < 100; line++) log.add(Buffer.from(`line ${line}\n`));
  expect(log.tail(3)).toBe("line 97\nline 98\nline 99");
});

it("stays within its bound and counts all that came", () => {
  const log = new ConsoleLog();
  for (let n = 0; n < 300; n++) log.add(Buffer.alloc(4096, 97));
  expect(log.tail().length).toBe(65_536);
  expect(log.totalBytes).toBe(1_228_800);
  log.add(Buffer.alloc(maxConsoleBytes * 5, 98));
  expect(log.tail()).toBe("b".repeat(65_536));
});
