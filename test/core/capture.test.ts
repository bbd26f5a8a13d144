import { expect, test } from "vitest";
import { Capture } from "../../src/core/capture.js";

test("what fits is kept whole", () => {
  const capture = new Capture(10);
  capture.add(Buffer.from("abcde"));
  capture.add(Buffer.from("fghij"));
  expect(capture.end()).toEqual({ text: "abcdefghij", totalBytes: 10, truncated: false });
});

test("head and tail of what does not fit, with the dropped bytes counted", () => {
  const capture = new Capture(10);
  capture.add(Buffer.from("0123456789abcdef"));
  expect(capture.end()).toEqual({ text: "01234\n[6 bytes dropped]\nbcdef", totalBytes: 16, truncated: true });
});

test("the same for every way of cutting the stream into chunks", () => {
  for (let size = 1; size <= 40; size++) {
    const capture = new Capture(8);
    const bytes = Buffer.from("the quick brown fox jumps over the dog");
    for (let at = 0; at < bytes.length; at += size) capture.add(bytes.subarray(at, at + size));
    expect(capture.end()).toEqual({ text: "the \n[30 bytes dropped]\n dog", totalBytes: 38, truncated: true });
  }
});

test("invalid UTF-8 is replaced", () => {
  const capture = new Capture(1024);
  capture.add(Buffer.from([0x61, 0xff, 0x62]));
  expect(capture.end().text).toBe("a\ufffdb");
});
