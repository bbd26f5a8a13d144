import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";

// The guest program under sanitizers, on a socket, spoken to in raw bytes: what no well-behaved host would send.
const root = new URL("../..", import.meta.url).pathname;
const nonce = Buffer.from("000102030405060708090a0b0c0d0e0f", "hex");
let child: ChildProcess;
let port: Duplex;
let received: Buffer;
let complaints: string;
let directory: string;

beforeAll(() => void execFileSync("make", ["-s", "-C", join(root, "guest"), "hosted"]));

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-guest-"));
  received = Buffer.alloc(0);
  complaints = "";
  child = spawn(join(root, "build/guest/pyro-guest-hosted"), ["3"], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  child.stderr!.on("data", (part: Buffer) => (complaints += part.toString().slice(0, 4096)));
  port = child.stdio[3] as Duplex;
  port.on("error", () => {});
  port.on("data", (part: Buffer) => (received = Buffer.concat([received, part])));
});

afterEach(async () => {
  // Its host gone, the program ends by itself and leaves nothing allocated.
  const exited = child.exitCode === null ? once(child, "exit") : undefined;
  port.destroy();
  await exited;
  rmSync(directory, { recursive: true });
  expect(complaints).toBe("");
  expect(child.exitCode).toBe(0);
});

function frame(type: number, stream: number, payload: Buffer | string = ""): Buffer {
  const bytes = Buffer.from(payload);
  const header = Buffer.alloc(8);
  header.writeUInt32LE((type | (bytes.length << 8)) >>> 0, 0);
  header.writeUInt32LE(stream, 4);
  return Buffer.concat([header, bytes]);
}

function field(tag: number, value: Buffer | string): Buffer {
  const bytes = Buffer.from(value);
  const header = Buffer.alloc(5);
  header[0] = tag;
  header.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([header, bytes]);
}

const message = (...fields: Buffer[]): Buffer => Buffer.concat([...fields, Buffer.from([0xff])]);
const sync = frame(0x01, 0, message(field(1, "\x01\0"), field(2, "\x01\0"), field(4, nonce)));
const shell = (stream: number, script: string): Buffer =>
  frame(0x03, stream, message(field(8, "\x01"), field(0x10, "sh"), field(0x10, "-c"), field(0x10, script), field(0x15, "\0")));
const ping = (stream: number): Buffer => frame(0x03, stream, message(field(8, "\x09")));

interface Frame {
  type: number;
  stream: number;
  payload: Buffer;
}

function frames(): Frame[] {
  const list: Frame[] = [];
  for (let at = 0; at + 8 <= received.length; ) {
    const length = received.readUInt32LE(at) >>> 8;
    if (at + 8 + length > received.length) break;
    list.push({ type: received[at]!, stream: received.readUInt32LE(at + 4), payload: received.subarray(at + 8, at + 8 + length) });
    at += 8 + length;
  }
  return list;
}

async function until(condition: (list: Frame[]) => boolean): Promise<Frame[]> {
  for (const end = Date.now() + 120_000; Date.now() < end; ) {
    const list = frames();
    if (condition(list)) return list;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`not within 120 s; got ${JSON.stringify(frames().map((one) => [one.type, one.stream, one.payload.length]))}`);
}

const has = (type: number, stream: number) => (list: Frame[]) => list.some((one) => one.type === type && one.stream === stream);
const text = (list: Frame[], type: number, stream: number): string =>
  Buffer.concat(list.filter((one) => one.type === type && one.stream === stream).map((one) => one.payload)).toString();

test("every vector of a whole connection is taken or answered with FAULT", async () => {
  const lines = readFileSync(join(root, "protocol/vectors/sequences.txt"), "utf8").split("\n").filter((line) => / host \w+ sequence /.test(line));
  expect(lines.length).toBeGreaterThan(15);
  for (const line of lines) {
    const [name, , verdict, , bytes] = line.split(" ") as [string, string, string, string, string];
    const parts = bytes.split(",").map((token) => {
      const [digits, times] = token.split("*") as [string, string?];
      return Buffer.concat(Array.from({ length: Number(times ?? 1) }, () => Buffer.from(digits, "hex")));
    });
    received = Buffer.alloc(0);
    port.write(Buffer.concat([Buffer.alloc(65_544), sync, ...parts]));
    // An accepted one still answers a request afterwards; a rejected one has said FAULT.
    if (verdict === "accept") port.write(ping(4_000_000_000));
    const list = await until((all) => has(0x84, 0)(all) || has(0x83, 4_000_000_000)(all));
    expect([name, has(0x84, 0)(list) ? "reject" : "accept"]).toEqual([name, verdict]);
  }
});

test("what the command wrote comes, a background child is not waited for and does not die of its pipe", async () => {
  port.write(Buffer.concat([sync, shell(1, `(sleep 0.3; for i in 1 2 3; do echo late; done; echo alive > ${directory}/alive) & echo out; echo err >&2; exit 7`)]));
  const list = await until(has(0x83, 1));
  expect(list.map((one) => one.type).filter((type) => type !== 0x11 && type !== 0x12)).toEqual([0x81, 0x82, 0x19, 0x1a, 0x83]);
  expect([text(list, 0x11, 1), text(list, 0x12, 1)]).toEqual(["out\n", "err\n"]);
  expect(list.at(-1)!.payload.subarray(0, 6).toString("hex")).toBe("420100000007");
  await until(() => existsSync(join(directory, "alive")));
});

test("never more than its credit, and the rest after CREDIT", async () => {
  port.write(Buffer.concat([sync, shell(1, "head -c 300000 /dev/zero"), ping(2)]));
  const bytes = (list: Frame[]): number => text(list, 0x11, 1).length;
  await until((list) => bytes(list) >= 262_144 && has(0x83, 2)(list));
  port.write(ping(3));
  expect(bytes(await until(has(0x83, 3)))).toBe(262_144);
  expect(has(0x83, 1)(frames())).toBe(false);
  port.write(frame(0x21, 1, Buffer.from([0, 0, 1, 0])));
  expect(bytes(await until(has(0x83, 1)))).toBe(300_000);
});

test("all 256 exit codes", async () => {
  port.write(sync);
  for (let code = 0; code < 256; code++) {
    port.write(shell(code + 1, `exit ${code}`));
    if (code % 16 === 15) await until(has(0x83, code + 1));
  }
  const list = await until((all) => all.filter((one) => one.type === 0x83).length === 256);
  for (const one of list.filter((each) => each.type === 0x83)) expect([one.payload[0], one.payload[5]]).toEqual([0x42, one.stream - 1]);
});

test("a request that broke off and was filled with padding is never run; the next SYNC finds an empty connection", async () => {
  const request = shell(1, `touch ${directory}/ran`);
  for (let cut = 1; cut < request.length; cut += 7) {
    received = Buffer.alloc(0);
    port.write(Buffer.concat([sync, request.subarray(0, cut), Buffer.alloc(65_544), sync, ping(1)]));
    const list = await until((all) => has(0x83, 1)(all));
    expect(list.at(-1)!.payload[0]).toBe(0x44);
  }
  expect(readdirSync(directory)).toEqual([]);
});

test("SYNC kills the commands and removes the half-written files of the connection", async () => {
  const write = frame(0x03, 2, message(field(8, "\x03"), field(0x20, join(directory, "file"))));
  port.write(Buffer.concat([sync, shell(1, `echo on; sleep 60; touch ${directory}/survived`), write, frame(0x10, 2, "half")]));
  const pid = (await until((all) => has(0x11, 1)(all))).find((one) => one.type === 0x82)!.payload.readUInt32LE(0);
  await until(() => readdirSync(directory).length === 1);
  port.write(sync);
  await until(() => readdirSync(directory).length === 0 && !existsSync(`/proc/${pid}`));
});

test("CANCEL ends a command with its signal and a write with ECANCELED", async () => {
  const write = frame(0x03, 2, message(field(8, "\x03"), field(0x20, join(directory, "file"))));
  port.write(Buffer.concat([sync, shell(1, "sleep 60"), write, frame(0x10, 2, "half")]));
  await until(has(0x82, 1));
  port.write(Buffer.concat([frame(0x06, 1), frame(0x06, 2)]));
  const list = await until((all) => has(0x83, 1)(all) && has(0x83, 2)(all));
  const result = (stream: number): string => list.find((one) => one.type === 0x83 && one.stream === stream)!.payload.toString("hex");
  expect(result(1).slice(0, 12)).toBe("430100000009");
  expect(result(2).slice(0, 18)).toBe("40040000007d000000");
  expect(readdirSync(directory)).toEqual([]);
});

test("200 connections of arbitrary bytes end in FAULT or silence, and SYNC still works", async () => {
  let seed = 12_345;
  const random = (below: number): number => (seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0) % below;
  for (let round = 0; round < 200; round++) {
    const junk = Buffer.from(Array.from({ length: random(200) }, () => (random(3) === 0 ? [1, 3, 4, 6, 16, 24, 33][random(7)]! : random(256))));
    received = Buffer.alloc(0);
    port.write(Buffer.concat([sync, junk, Buffer.alloc(65_544), sync, ping(1)]));
    await until(has(0x83, 1));
  }
});
