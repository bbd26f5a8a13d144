// A guest that does in turn all that the protocol does not allow, on a real socket. Each time the connection ends with PROTOCOL, everything that was under
// way ends with the same error, and what it sent costs the host no more than its limits say.
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { FrameDecoder, FrameType, encodeFrame, encodeHeader, hostFrames } from "../../src/channel/codec.js";
import { connectChannel, type Channel } from "../../src/channel/index.js";
import { encodeMessage, parseMessage, u16, u32, u64, u8, type Field } from "../../src/channel/message.js";

const { CREDIT_0, DATA_0, DATA_1, DATA_2, END_1, END_2, FAULT, HELLO, REQUEST, RESULT, STARTED, SYNC } = FrameType;

let directory: string;
let path: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-hostile-"));
  path = join(directory, "port");
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const open: { end(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.end();
});

const hello = (nonce: Buffer) => encodeFrame(HELLO, 0, encodeMessage([["VERSION", u16(1)], ["NONCE", nonce], ["KERNEL", Buffer.from("6.1")], ["PROGRAM", Buffer.from("2")]]));

interface Guest {
  socket: Socket;
  nonce: Buffer;
  /** The host's frames so far, by type. */
  heard: Map<number, number>;
}

/** A guest that says `greeting` and then nothing but what the test has it say. */
function guest(greeting: (nonce: Buffer) => Buffer = hello): Promise<{ host: Socket; guest: Promise<Guest> }> {
  return new Promise((resolve, reject) => {
    let spoken: (guest: Guest) => void;
    const said = new Promise<Guest>((done) => (spoken = done));
    const server = createServer((socket) => {
      const decoder = new FrameDecoder(hostFrames);
      const heard = new Map<number, number>();
      socket.on("error", () => {});
      socket.on("data", (chunk: Buffer) => decoder.push(chunk, ({ type, payload }) => {
        heard.set(type, (heard.get(type) ?? 0) + 1);
        if (type !== SYNC) return;
        const nonce = Buffer.from(parseMessage(payload, "SYNC", ["VERSION_MIN", "VERSION_MAX", "NONCE"]).get("NONCE")!);
        socket.write(greeting(nonce));
        spoken({ socket, nonce, heard });
      }));
    });
    rmSync(path, { force: true });
    server.on("error", reject).listen(path, () => {
      const host = connect(path, () => resolve({ host, guest: said }));
      open.push({ end: () => (host.destroy(), server.close()) });
    });
  });
}

const message = (...fields: Field[]) => encodeMessage(fields);
const exit = (...fields: Field[]) => encodeFrame(RESULT, 1, message(["DURATION", u64(1n)], ...fields));
const totals = (out: bigint, err: bigint): Field[] => [["BYTES_1", u64(out)], ["BYTES_2", u64(err)]];
const started = encodeFrame(STARTED, 1, u32(7));
const ends = [encodeFrame(END_1, 1), encodeFrame(END_2, 1)];
const data = (bytes: number) => encodeFrame(DATA_1, 1, Buffer.alloc(bytes, "x"));

/** To a command with standard input, stream 1; what makes it wrong comes last. */
const toExec: readonly (readonly [lie: string, frames: readonly Buffer[]])[] = [
  ["a length over the limit", [encodeHeader(DATA_1, 1, 65_537)]],
  ["the longest length there is", [encodeHeader(DATA_1, 1, 0xff_ffff)]],
  ["no length where there must be one", [started, encodeHeader(DATA_1, 1, 0)]],
  ["a type that there is not", [encodeFrame(0x7f, 1)]],
  ["padding", [Buffer.alloc(9)]],
  ["a frame of the host's", [encodeFrame(REQUEST, 1, message())]],
  ["input, which only the host sends", [started, encodeFrame(DATA_0, 1, Buffer.from("x"))]],
  ["output for the connection itself", [started, encodeFrame(DATA_1, 0, Buffer.from("x"))]],
  ["a hello for a command", [encodeFrame(HELLO, 1, message())]],
  ["hello twice", [hello(Buffer.alloc(16))]],
  ["a stream that nobody opened", [encodeFrame(DATA_1, 9, Buffer.from("x"))]],
  ["the last stream there could be", [encodeFrame(END_1, 0xffff_ffff)]],
  ["a stream that is over, used again", [started, ...ends, exit(["EXIT_CODE", u8(0)], ...totals(0n, 0n)), encodeFrame(DATA_1, 1, Buffer.from("x"))]],
  ["the same result twice", [started, ...ends, exit(["EXIT_CODE", u8(0)], ...totals(0n, 0n)), exit(["EXIT_CODE", u8(0)], ...totals(0n, 0n))]],
  ["output before it was started", [data(1)]],
  ["started twice", [started, started]],
  ["more than its credit", [started, data(65_536), data(65_536), data(65_536), data(65_536), data(1)]],
  ["output after its end", [started, encodeFrame(END_1, 1), data(1)]],
  ["an end twice", [started, encodeFrame(END_2, 1), encodeFrame(END_2, 1)]],
  ["no credit at all, as a gift", [started, encodeFrame(CREDIT_0, 1, u32(0))]],
  ["more credit than there may be", [started, encodeFrame(CREDIT_0, 1, u32(16_777_216)), encodeFrame(CREDIT_0, 1, u32(1))]],
  ["an exit before its beginning", [exit(["EXIT_CODE", u8(0)], ...totals(0n, 0n))]],
  ["an exit before the end of its output", [started, exit(["EXIT_CODE", u8(0)], ...totals(0n, 0n))]],
  ["an exit with more output than came", [started, data(3), ...ends, exit(["EXIT_CODE", u8(0)], ...totals(4n, 0n))]],
  ["an exit with less output than came", [started, data(3), ...ends, exit(["EXIT_CODE", u8(0)], ...totals(2n, 0n))]],
  ["an exit and a signal", [started, ...ends, exit(["EXIT_CODE", u8(0)], ["EXIT_SIGNAL", u8(9)], ...totals(0n, 0n))]],
  ["neither exit nor signal", [started, ...ends, exit(...totals(0n, 0n))]],
  ["a signal that there is not", [started, ...ends, exit(["EXIT_SIGNAL", u8(65)], ...totals(0n, 0n))]],
  ["an exit without its output's length", [started, ...ends, exit(["EXIT_CODE", u8(0)])]],
  ["the result of another request", [started, ...ends, encodeFrame(RESULT, 1, message(["CLOCK", u64(1n)]))]],
  ["a field twice", [started, ...ends, encodeFrame(RESULT, 1, Buffer.concat([message(["BYTES_1", u64(0n)]).subarray(0, -1), message(["BYTES_1", u64(0n)])]))]],
  ["a message without its end", [started, ...ends, encodeFrame(RESULT, 1, message(["BYTES_1", u64(0n)]).subarray(0, -1))]],
  ["bytes after a message's end", [started, ...ends, encodeFrame(RESULT, 1, Buffer.concat([exit(["EXIT_CODE", u8(0)], ...totals(0n, 0n)).subarray(8), Buffer.of(1)]))]],
  ["a field that is longer than its message", [started, ...ends, encodeFrame(RESULT, 1, Buffer.from("42ffffffff00ff", "hex"))]],
  ["a failure that is none", [encodeFrame(RESULT, 1, message(["ERRNO", u32(0)], ["STAGE", Buffer.from("exec")]))]],
  ["a failure with an errno that there is not", [encodeFrame(RESULT, 1, message(["ERRNO", u32(4096)], ["STAGE", Buffer.from("exec")]))]],
  ["a failure after it was started, without its ends", [started, encodeFrame(RESULT, 1, message(["ERRNO", u32(5)], ["STAGE", Buffer.from("wait")]))]],
  ["nothing but a fault", [encodeFrame(FAULT, 0, message(["MESSAGE", Buffer.from("\x1b]0;owned\x07")]))]],
];

test.each(toExec)("%s", async (_lie, frames) => {
  const { host, guest: speaking } = await guest();
  const channel = await connectChannel(host, { fresh: true, deadlineMs: 120_000 });
  const { socket } = await speaking;
  channel.exec({ argv: ["cat"], stdin: true }); // nobody reads: what has no room for it is not to be sent
  const other = channel.stat("/a");
  other.catch(() => {});
  socket.write(Buffer.concat(frames));
  const end = await channel.closed;
  expect(end).toMatchObject({ code: "PROTOCOL" });
  // eslint-disable-next-line no-control-regex -- what a terminal would act on
  expect(end!.message).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
  await expect(other).rejects.toMatchObject({ code: "PROTOCOL" });
  expect(host.destroyed).toBe(true);
  expect(() => channel.exec({ argv: ["ls"] })).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
});

/** To other requests. */
const toOthers: readonly (readonly [lie: string, ask: (channel: Channel) => Promise<unknown>, frames: readonly Buffer[], code: string])[] = [
  ["a file that begins", (channel) => channel.readFile("/a").toArray(), [started], "PROTOCOL"],
  ["a file on the second output", (channel) => channel.readFile("/a").toArray(), [encodeFrame(DATA_2, 1, Buffer.from("x"))], "PROTOCOL"],
  ["credit for a file that is read", (channel) => channel.readFile("/a").toArray(), [encodeFrame(CREDIT_0, 1, u32(1))], "PROTOCOL"],
  ["a name in a directory that is a path", (channel) => channel.list("/a"), [encodeFrame(DATA_1, 1, Buffer.concat([u16(4), Buffer.from("../x"), Buffer.alloc(48)])), encodeFrame(END_1, 1), encodeFrame(RESULT, 1, message(["BYTES_1", u64(54n)]))], "PROTOCOL"],
  ["a list that breaks off", (channel) => channel.list("/a"), [encodeFrame(DATA_1, 1, Buffer.of(9, 0, 1)), encodeFrame(END_1, 1), encodeFrame(RESULT, 1, message(["BYTES_1", u64(3n)]))], "PROTOCOL"],
  ["a time of two seconds in nanoseconds", (channel) => channel.stat("/a"), [encodeFrame(RESULT, 1, message(["STAT", Buffer.alloc(48, 0xff)]))], "PROTOCOL"],
  ["success for a file that it has not taken", (channel) => channel.writeFile("/a", Buffer.alloc(1 << 20)), [encodeFrame(RESULT, 1, message())], "PROTOCOL"],
  ["a failure in words that steer a terminal", (channel) => channel.stat("/a"), [encodeFrame(RESULT, 1, message(["ERRNO", u32(2)], ["STAGE", Buffer.from("open")], ["MESSAGE", Buffer.from("\x1b[2J\u202e")]))], "NOT_FOUND"],
];

test.each(toOthers)("%s", async (_lie, ask, frames, code) => {
  const { host, guest: speaking } = await guest();
  const channel = await connectChannel(host, { fresh: true, deadlineMs: 120_000 });
  const { socket } = await speaking;
  const asked = ask(channel);
  asked.catch(() => {});
  socket.write(Buffer.concat(frames));
  const error = await asked.then(() => undefined, (reason: unknown) => reason as Error & { code: string });
  expect(error).toMatchObject({ code });
  // eslint-disable-next-line no-control-regex -- what a terminal would act on
  expect(error!.message).not.toMatch(/[\x00-\x1f\x7f-\x9f\u202e]/);
  channel.close();
});

test.each<[string, (nonce: Buffer) => Buffer, string]>([
  ["an endless greeting", () => Buffer.alloc(5 << 20, 0x81), "PROTOCOL"],
  ["hello in another version", (nonce) => encodeFrame(HELLO, 0, message(["VERSION", u16(9)], ["NONCE", nonce], ["KERNEL", Buffer.from("6.1")], ["PROGRAM", Buffer.from("2")])), "PROTOCOL"],
  ["somebody else's hello", () => hello(Buffer.alloc(16)), "TIMEOUT"],
  ["nothing", () => Buffer.alloc(0), "TIMEOUT"],
])("%s, and no hello", async (_lie, greeting, code) => {
  const { host } = await guest(greeting);
  await expect(connectChannel(host, { fresh: true, deadlineMs: code === "TIMEOUT" ? 300 : 120_000 })).rejects.toMatchObject({ code });
  expect(host.destroyed).toBe(true);
});

test("credit that never comes: a write waits within its window, and can be given up", async () => {
  const { host, guest: speaking } = await guest();
  const channel = await connectChannel(host, { fresh: true, deadlineMs: 120_000 });
  const { heard } = await speaking;
  const controller = new AbortController();
  const written = channel.writeFile("/a", (async function* () {
    for (let n = 0; n < 1000; n++) yield Buffer.alloc(65_536);
  })(), { signal: controller.signal });
  written.catch(() => {});
  await expect.poll(() => heard.get(DATA_0)).toBe(4); // 262,144 bytes
  controller.abort();
  await expect(written).rejects.toMatchObject({ code: "CANCELLED" });
  expect(heard.get(DATA_0)).toBe(4);
  channel.close();
});

test("floods: as many bytes as it likes, within bounds of memory", async () => {
  const { host, guest: speaking } = await guest();
  const channel = await connectChannel(host, { fresh: true, deadlineMs: 120_000 });
  const { socket } = await speaking;
  const command = channel.exec({ argv: ["yes"] });
  socket.write(started);
  // Nobody reads, so the window is all that it may send; then it sends as if there were no windows.
  const before = process.memoryUsage().rss;
  const flood = Buffer.concat(Array.from({ length: 64 }, () => data(65_536)));
  for (let n = 0; n < 16 && !socket.destroyed; n++) socket.write(flood); // 64 MB
  expect(await channel.closed).toMatchObject({ code: "PROTOCOL" });
  command.stdout.on("error", () => {});
  // Its own 64 MB wait in this process, too: the guest is in it.
  expect(process.memoryUsage().rss - before).toBeLessThan(160 << 20);
  await expect(command.result).rejects.toMatchObject({ code: "PROTOCOL" });
});

test("a flood of the smallest frames, all of them allowed", async () => {
  const { host, guest: speaking } = await guest();
  const channel = await connectChannel(host, { fresh: true, deadlineMs: 120_000 });
  const { socket } = await speaking;
  const command = channel.exec({ argv: ["yes"], stdin: true });
  let bytes = 0;
  command.stdout.on("data", (chunk: Buffer) => (bytes += chunk.length));
  socket.write(started);
  socket.write(Buffer.concat(Array.from({ length: 100_000 }, () => data(1))));
  socket.write(Buffer.concat([...ends, exit(["EXIT_CODE", u8(3)], ...totals(100_000n, 0n))]));
  expect(await command.result).toMatchObject({ exitCode: 3, stdoutBytes: 100_000 });
  await expect.poll(() => bytes).toBe(100_000);
  channel.close();
});
