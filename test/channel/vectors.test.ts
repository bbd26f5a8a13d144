import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { FrameDecoder, FrameType, encodeFrame, guestFrames, hostFrames, type Frame } from "../../src/channel/codec.js";
import { HelloSearch } from "../../src/channel/connect.js";
import type { Channel } from "../../src/channel/index.js";
import { readTree } from "../../src/channel/tree-reader.js";
import { encodeMessage, u32, type Field, type TagName } from "../../src/channel/message.js";
import { connected, settled } from "./fake-guest.js";

interface Vector {
  name: string;
  direction: string;
  accept: boolean;
  state: string;
  bytes: Buffer;
  meaning: [string, string][];
}

test("frames mean what the vectors say, also when split at every byte", () => {
  for (const vector of vectors("frames")) {
    const rules = vector.direction === "guest" ? guestFrames : hostFrames;
    // The padding is the guest's business; the decoder of the host's frames here is only the stand-in's.
    if (vector.name === "padding" && vector.direction === "host") continue;
    if (!vector.accept) {
      expect(() => decode([vector.bytes], rules), vector.name).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
      continue;
    }
    const meaning = Object.fromEntries(vector.meaning);
    const splits = vector.bytes.length > 100 ? [1, 4, 7, 8, 9, vector.bytes.length - 1] : vector.bytes.keys();
    for (const at of splits) {
      const frames = decode([vector.bytes.subarray(0, at), vector.bytes.subarray(at)], rules);
      expect(frames.map(({ type, stream, payload }) => [type, stream, payload.length]), vector.name).toEqual([
        [FrameType[meaning["type"] as keyof typeof FrameType], Number(meaning["stream"]), Number(meaning["length"])],
      ]);
      expect(encodeFrame(frames[0]!.type, frames[0]!.stream, frames[0]!.payload).equals(vector.bytes)).toBe(true);
    }
  }
});

test("the host's messages are written as the vectors have them", () => {
  let written = 0;
  for (const { name, direction, accept, bytes: expected, meaning } of vectors("messages")) {
    const fields = meaning.filter(([key]) => !["what", "count", "length"].includes(key));
    if (direction !== "host" || !accept || fields.length === 0) continue;
    written++;
    expect(encodeMessage(fields.map(([key, value]): Field => [key as TagName, bytesOf(value)])).equals(expected), name).toBe(true);
  }
  expect(written).toBeGreaterThan(40);
});

test("the guest's messages are taken and refused as the vectors say", async () => {
  for (const vector of vectors("messages").filter(({ direction }) => direction === "guest")) {
    const what = vector.meaning.find(([key]) => key === "what")![1];
    const taken = await takes(what, vector.bytes);
    expect(`${vector.name} ${taken}`).toBe(`${vector.name} ${vector.accept}`);
  }
});

test("sequences of the guest's frames are taken and refused as the vectors say, in one piece and byte by byte", async () => {
  for (const vector of vectors("sequences").filter(({ direction }) => direction === "guest")) {
    for (const step of [vector.bytes.length, vector.bytes.length > 5000 ? 4999 : 1]) {
      const { guest, channel } = await connected();
      ask(channel, vector.state.split(":")[1]!);
      for (let at = 0; at < vector.bytes.length; at += step) guest.say(vector.bytes.subarray(at, at + step));
      const end = await endOf(channel);
      expect(`${vector.name} ${end?.code}`).toBe(`${vector.name} ${vector.accept ? "CANCELLED" : "PROTOCOL"}`);
    }
  }
});

test("trees are read as the vectors say, in one piece and in pieces of 7 bytes", async () => {
  const all = vectors("trees");
  expect(all.length).toBeGreaterThan(50);
  for (const vector of all) {
    for (const step of [vector.bytes.length, 7]) {
      const read = readTree(pieces(vector.bytes, step));
      const outcome = await totalsOf(read);
      const { entries, content } = Object.fromEntries(vector.meaning);
      expect([vector.name, outcome]).toEqual([vector.name, vector.accept ? [Number(entries), BigInt(content!)] : "PROTOCOL"]);
    }
  }
});

async function* pieces(bytes: Buffer, step: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}

async function totalsOf(read: ReturnType<typeof readTree>): Promise<unknown> {
  try {
    for (;;) {
      const next = await read.next();
      if (next.done === true) return [next.value.entries, next.value.contentBytes];
    }
  } catch (error) {
    return (error as { code?: string }).code;
  }
}

async function takes(what: string, message: Buffer): Promise<boolean> {
  if (what === "HELLO") return new HelloSearch(Buffer.from(Array.from({ length: 16 }, (_, i) => i)), true).push(encodeFrame(FrameType.HELLO, 0, message)) !== undefined;
  const { guest, channel } = await connected();
  if (what === "FAULT") {
    guest.send(FrameType.FAULT, 0, message);
    const end = await endOf(channel);
    return end?.message.startsWith("The guest ended the channel") === true;
  }
  const asked = what === "RESULT_JOBS" ? channel.listJobs() : Promise.resolve([]);
  asked.catch(() => {});
  ask(channel, { RESULT_EXEC: "exec", RESULT_READ_FILE: "read", RESULT_WRITE_FILE: "write-ended", RESULT_STAT: "stat", RESULT_CLOCK: "clock", RESULT_PING: "ping", RESULT_PACK: "pack", RESULT_UNPACK: "unpack", RESULT_JOBS: "jobs", RESULT_ATTACH: "attach", RESULT_STATS: "stats", RESULT_LAYER: "layer", RESULT_FAILED: "exec" }[what]!);
  await settled();
  if (what === "RESULT_EXEC" || what === "RESULT_ATTACH") for (const [type, payload] of [[FrameType.STARTED, u32(1)], [FrameType.END_1], [FrameType.END_2]] as const) guest.send(type, 1, payload);
  if (what === "RESULT_READ_FILE" || what === "RESULT_PACK" || what === "RESULT_LAYER") guest.send(FrameType.END_1, 1);
  guest.send(FrameType.RESULT, 1, message);
  // A list is the caller's to hear of, not the connection's end.
  if (what === "RESULT_JOBS") return (await Promise.race([asked.then(() => "listed", (error: { code: string }) => error.code), channel.closed])) === "listed";
  return (await endOf(channel))?.code === "CANCELLED";
}

function ask(channel: Channel, request: string): void {
  if (request === "exec" || request === "exec-input") channel.exec({ argv: ["cat"], stdin: request === "exec-input" });
  if (request === "read") channel.readFile("/a");
  if (request === "write-ended") channel.writeFile("/a", Buffer.of()).catch(() => {});
  if (request === "write") channel.writeFile("/a", never()).catch(() => {});
  if (request === "pack") channel.packTree("/a");
  if (request === "layer") channel.readLayer();
  if (request === "unpack") channel.unpackTree("/a", [{ path: Buffer.of(), type: "directory", mode: 0, uid: 0, gid: 0, mtimeNs: 0n, sizeBytes: 0n }]).catch(() => {});
  if (request === "attach") channel.attachJob("a");
  if (request === "job") channel.startJob("a", { argv: ["a"] }).catch(() => {});
  if (request === "stats") channel.stats().catch(() => {});
  if (request === "stat") channel.stat("/a").catch(() => {});
  if (request === "clock") channel.setClock().catch(() => {});
  if (request === "ping") channel.ping().catch(() => {});
}

async function* never(): AsyncGenerator<Uint8Array> {
  await new Promise(() => {});
}

/** What the channel ended with; CANCELLED where it was still well and had to be closed. */
async function endOf(channel: Channel): Promise<{ code: string; message: string } | undefined> {
  await settled();
  channel.close();
  return (await channel.closed) ?? { code: "CANCELLED", message: "" };
}

function decode(chunks: Buffer[], rules: typeof guestFrames): Frame[] {
  const decoder = new FrameDecoder(rules);
  const frames: Frame[] = [];
  for (const chunk of chunks) decoder.push(chunk, (frame) => frames.push(frame));
  return frames;
}

function vectors(file: string): Vector[] {
  const text = readFileSync(new URL(`../../protocol/vectors/${file}.txt`, import.meta.url), "utf8");
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const [name, direction, verdict, state, bytes, ...meaning] = line.split(" ") as [string, string, string, string, string, ...string[]];
    return { name, direction, accept: verdict === "accept", state, bytes: bytesOf(bytes), meaning: meaning.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]) };
  });
}

function bytesOf(text: string): Buffer {
  if (text === "-") return Buffer.alloc(0);
  return Buffer.concat(text.split(",").map((token) => {
    const [hex, count = "1"] = token.split("*");
    const one = Buffer.from(hex!, "hex");
    return Buffer.alloc(one.length * Number(count), one);
  }));
}
