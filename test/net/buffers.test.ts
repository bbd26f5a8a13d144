// What is kept of bytes on their way, and who may write where: buffers go from one connection to the next.
import { Writable } from "node:stream";
import { expect, test } from "vitest";
import { HostWriter } from "../../src/net/host-writer.js";
import { ByteQueue } from "../../src/net/tcp/byte-queue.js";

function contentOf(queue: ByteQueue, offset = 0): string {
  const target = Buffer.alloc(queue.length - offset);
  queue.copyTo(target, 0, offset, target.length);
  return target.toString();
}

test("queues that empty and fill in turn have each its own bytes", () => {
  const [first, second, third] = [new ByteQueue(), new ByteQueue(), new ByteQueue()];
  first.push(Buffer.from("abc"));
  second.push(Buffer.from("defg"));
  first.drop(3);
  third.push(Buffer.from("hi"));
  first.push(Buffer.from("jkl"));
  second.drop(1);
  second.push(Buffer.from("mno"));
  expect([contentOf(first), contentOf(second), contentOf(third)]).toEqual(["jkl", "efgmno", "hi"]);
  third.drop(1);
  third.drop(1);
  first.push(Buffer.from("p"));
  second.drop(6);
  second.push(Buffer.from("q"));
  expect([contentOf(first), contentOf(second), third.length]).toEqual(["jklp", "q", 0]);
});

test("a queue whose last chunk is full, or not its own, empties as any other", () => {
  const queue = new ByteQueue();
  for (const length of [4096, 4095, 5000, 1]) {
    queue.push(Buffer.alloc(length, "x"));
    queue.push(Buffer.from("y"));
    expect(contentOf(queue, length)).toBe("y");
    queue.drop(length + 1);
    expect(queue.length).toBe(0);
  }
});

test("a block that is being written is nobody else's, one that was is the next one's", async () => {
  const written: Buffer[] = [];
  const done: (() => void)[] = [];
  const target = () => new Writable({ write: (chunk: Buffer, _encoding, callback) => (written.push(chunk), void done.push(callback)) });
  const consumed: number[] = [];
  const [first, second] = [new HostWriter(target(), (bytes) => consumed.push(bytes)), new HostWriter(target(), (bytes) => consumed.push(bytes))];
  first.push(Buffer.from("abc"));
  await turn();
  second.push(Buffer.from("def"));
  await turn();
  expect(written.map(String)).toEqual(["abc", "def"]);
  done.shift()!();
  await turn();
  second.push(Buffer.from("gh"));
  first.push(Buffer.from("ij"));
  await turn();
  expect(written.map(String)).toEqual(["ghc", "def", "ij"]); // the second's next is in what was the first's
  expect(consumed).toEqual([3]);
});

const turn = () => new Promise((resolve) => setImmediate(resolve));
