import { expect, test, vi } from "vitest";
import { FrameType, encodeFrame } from "../../src/channel/codec.js";
import { connectChannel } from "../../src/channel/index.js";
import { encodeMessage, u32, u64, u8 } from "../../src/channel/message.js";
import { FakeGuest, connected, settled } from "./fake-guest.js";

const result = (out: number, err: number) =>
  encodeMessage([["EXIT_CODE", u8(3)], ["DURATION", u64(2_000_000n)], ["BYTES_1", u64(BigInt(out))], ["BYTES_2", u64(BigInt(err))]]);

test("a command's output, input and result; the guest's words can't steer a terminal", async () => {
  const { guest, channel } = await connected();
  expect(channel.hello).toEqual({ version: 1, kernel: "6.1\\x1b[2J", program: "2.1.0" });
  const command = channel.exec({ argv: ["cat"], stdin: true });
  command.stdin!.end("hello");
  await settled();
  expect(guest.frames.map(({ type, payload }) => [type, payload.length])).toEqual([[FrameType.REQUEST, 21], [FrameType.DATA_0, 5], [FrameType.END_0, 0]]);
  guest.send(FrameType.STARTED, 1, u32(42));
  guest.send(FrameType.DATA_1, 1, Buffer.from("he"));
  guest.send(FrameType.DATA_1, 1, Buffer.from("llo"));
  guest.send(FrameType.END_1, 1);
  guest.send(FrameType.END_2, 1);
  guest.send(FrameType.RESULT, 1, result(5, 0));
  expect(await command.started).toEqual({ pid: 42 });
  expect(await command.result).toEqual({ exitCode: 3, durationMs: 2, stdoutBytes: 5, stderrBytes: 0 });
  expect((await command.stdout.toArray()).join("")).toBe("hello");
  channel.close();
  expect(await channel.closed).toBeUndefined();
});

test("credit is given only as the reader takes bytes, and a reader that doesn't read stops nobody else", async () => {
  const { guest, channel } = await connected();
  const command = channel.exec({ argv: ["yes"] });
  guest.send(FrameType.STARTED, 1, u32(1));
  for (let i = 0; i < 4; i++) guest.send(FrameType.DATA_1, 1, Buffer.alloc(65_536));
  const pong = channel.ping();
  await settled();
  guest.send(FrameType.RESULT, 2, encodeMessage([["DURATION", u64(7_000_000n)]]));
  expect(await pong).toBe(7);
  const credits = () => guest.frames.filter(({ type }) => type === FrameType.CREDIT_1).map(({ payload }) => payload.readUInt32LE());
  expect(credits()).toEqual([]);
  for (let taken = 0; taken < 262_144; ) {
    const chunk = command.stdout.read() as Buffer | null;
    if (chunk === null) await settled();
    else taken += chunk.length;
  }
  expect(credits()).toEqual([65_536, 65_536, 65_536, 65_536]);
  channel.close();
});

test("a guest has half a minute to say who it is; while it starts, as long as whoever started it lets it", async () => {
  const { guest, channel } = await connected();
  const identity = { vmId: "vm-a", hostname: "vm-a", machineId: "0".repeat(32) };
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const starting = channel.identify(identity, new AbortController().signal);
    const hurried = channel.identify(identity);
    vi.advanceTimersByTime(3_600_000);
    await expect(hurried).rejects.toMatchObject({ code: "TIMEOUT", message: "The guest did not take its identity within 30 s." });
    guest.send(FrameType.RESULT, 1, encodeMessage([["CLOCK", u64(5n)]]));
    expect(await starting).toEqual({ clockNs: 5n });
  } finally {
    vi.useRealTimers();
  }
  channel.close();
});

test("a guest that sends and never reads is given no more credit than its side takes", async () => {
  const { guest, channel } = await connected();
  const command = channel.exec({ argv: ["yes"] });
  guest.send(FrameType.STARTED, 1, u32(1));
  await settled();
  guest.stopReading();
  command.stdout.resume();
  // It follows the rules otherwise: it sends what it has credit for, as long as credit could have come.
  const cause = channel.closed;
  for (let i = 0; i < 6000; i++) {
    guest.send(FrameType.DATA_1, 1, Buffer.alloc(65_536));
    await settled();
  }
  expect(guest.unread()).toBeLessThan(20_000);
  expect(await cause).toMatchObject({ code: "PROTOCOL" });
});

test("a destroyed output is drained to nowhere", async () => {
  const { guest, channel } = await connected();
  const command = channel.exec({ argv: ["yes"] });
  guest.send(FrameType.STARTED, 1, u32(1));
  command.stdout.destroy();
  await settled();
  for (let i = 0; i < 20; i++) guest.send(FrameType.DATA_1, 1, Buffer.alloc(65_536));
  guest.send(FrameType.END_1, 1);
  guest.send(FrameType.END_2, 1);
  guest.send(FrameType.RESULT, 1, result(20 * 65_536, 0));
  expect(await command.result).toMatchObject({ exitCode: 3, stdoutBytes: 1_310_720 });
  channel.close();
});

test("no more is sent than there is credit for", async () => {
  const { guest, channel } = await connected();
  const written = channel.writeFile("/a", Buffer.alloc(300_000));
  await settled();
  const sent = () => guest.frames.filter(({ type }) => type === FrameType.DATA_0).reduce((sum, { payload }) => sum + payload.length, 0);
  expect(sent()).toBe(262_144);
  guest.send(FrameType.CREDIT_0, 1, u32(100_000));
  await settled();
  await settled();
  expect(sent()).toBe(300_000);
  expect(guest.frames.at(-1)!.type).toBe(FrameType.END_0);
  guest.send(FrameType.RESULT, 1, encodeMessage([]));
  await written;
  channel.close();
});

test("one violation ends everything with the same error", async () => {
  const { guest, channel } = await connected();
  const command = channel.exec({ argv: ["cat"], stdin: true });
  const reading = channel.readFile("/a").toArray();
  guest.send(FrameType.DATA_1, 9, Buffer.from("x"));
  await expect(reading).rejects.toMatchObject({ code: "PROTOCOL" });
  await expect(command.result).rejects.toMatchObject({ code: "PROTOCOL" });
  expect(await channel.closed).toMatchObject({ code: "PROTOCOL" });
  expect(() => channel.exec({ argv: ["ls"] })).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
});

test("a failed read breaks the stream with what the guest said; a lost guest is GUEST_LOST; a mute one is TIMEOUT", async () => {
  const { guest, channel } = await connected();
  const reading = channel.readFile("/a").toArray();
  guest.send(FrameType.RESULT, 1, encodeMessage([["ERRNO", u32(2)], ["STAGE", Buffer.from("open")], ["MESSAGE", Buffer.from("No such file")]]));
  await expect(reading).rejects.toMatchObject({ code: "NOT_FOUND", message: "The guest could not read /a: open failed: No such file" });
  const pong = channel.ping();
  guest.port.push(null);
  await expect(pong).rejects.toMatchObject({ code: "GUEST_LOST" });
  const mute = new FakeGuest();
  mute.port.write = () => true;
  await expect(connectChannel(mute.port, { deadlineMs: 5 })).rejects.toMatchObject({ code: "TIMEOUT" });
});

test("mutated conversations end in PROTOCOL or go on, and nothing else", async () => {
  let seed = 12345;
  const random = (below: number) => ((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 8) % below;
  const good = Buffer.concat([
    encodeFrame(FrameType.STARTED, 1, u32(1)), encodeFrame(FrameType.DATA_1, 1, Buffer.from("abc")), encodeFrame(FrameType.CREDIT_0, 1, u32(9)),
    encodeFrame(FrameType.END_1, 1), encodeFrame(FrameType.END_2, 1), encodeFrame(FrameType.RESULT, 1, result(3, 0)),
  ]);
  for (let round = 0; round < 2000; round++) {
    const { guest, channel } = await connected();
    const command = channel.exec({ argv: ["cat"], stdin: true });
    command.stdout.resume();
    const bytes = Buffer.from(good);
    for (let i = random(4); i >= 0; i--) bytes[random(bytes.length)] = random(256);
    guest.say(bytes.subarray(0, random(bytes.length) + 1));
    await settled();
    channel.close();
    const end = await channel.closed;
    expect([undefined, "PROTOCOL"]).toContain(end?.code);
  }
});
