// Whatever frames and messages a guest sends: nothing is thrown, no more is held than may be, and nothing comes back but what was asked for.
import { EventEmitter, once } from "node:events";
import { createSocket } from "node:dgram";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { expect, test } from "vitest";
import { link } from "../../src/net/addresses.js";
import { Audit } from "../../src/net/audit.js";
import { dialDirectly } from "../../src/net/dial.js";
import { encodeAnswer, encodeName, fitDatagram, parseQuestion } from "../../src/net/dns/message.js";
import { Gateway } from "../../src/net/gateway.js";
import { Secrets } from "../../src/net/secrets/secrets.js";
import { Flag, sendSyn } from "../../src/net/tcp/segment.js";
import { addBytes, checksumOf, pseudoHeader } from "../../src/net/wire/checksum.js";
import { FrameReader, Link } from "../../src/net/wire/link.js";
import { sendDatagram } from "../../src/net/wire/udp.js";
import { seeded } from "../environments/fixtures.js";
import { allowAll } from "./allow-all.js";
import { Frames } from "./peer.js";

/** The host's end of the cable: counts what is sent, and takes it when it is told to. */
class Cable extends EventEmitter {
  bytes = 0;
  frames: Buffer[] = [];
  takes = true;
  destroyed = false;
  #waiting: (() => void)[] = [];

  write(chunk: Buffer, done: () => void): void {
    this.bytes += chunk.length;
    for (let at = 0; at < chunk.length; at += 4 + chunk.readUInt32BE(at)) this.frames.push(Buffer.from(chunk.subarray(at + 4, at + 4 + chunk.readUInt32BE(at))));
    if (this.takes) setImmediate(done);
    else this.#waiting.push(done);
  }

  take(): void {
    for (const done of this.#waiting.splice(0)) done();
  }

  destroy(): void {
    this.destroyed = true;
  }
}

function framed(...frames: readonly Buffer[]): Buffer {
  return Buffer.concat(frames.flatMap((frame) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(frame.length);
    return [length, frame];
  }));
}

/** As the guest sends it: the other way round from what `Frames` makes. */
function fromGuest(make: (frames: Frames) => void): Buffer {
  const frames = new Frames();
  make(frames);
  const [frame] = frames.take();
  link.gatewayMac.copy(frame!, 0);
  link.guestMac.copy(frame!, 6);
  return frame!;
}

const server = 0xcb007105;
const syn = (port: number, sourcePort = 40_000) => fromGuest((frames) => sendSyn(frames, { source: link.guest, sourcePort, destination: server, destinationPort: port, sequence: 1, acknowledgment: 0, flags: Flag.syn, window: 1000 }, 1460, 7));
const datagram = (port: number, data: Buffer, to: number = server) => fromGuest((frames) => sendDatagram(frames, link.guest, 40_000, port, data, to));
const question = (name: string, type = 1) => Buffer.concat([Buffer.from("000101000001000000000001", "hex"), encodeName(name)!, Buffer.from([0, type, 0, 1]), Buffer.from("0000290200000080000000", "hex")]);
const arp = Buffer.concat([Buffer.alloc(6, 0xff), link.guestMac, Buffer.from("08060001080006040001", "hex"), link.guestMac, Buffer.from("64600002", "hex"), Buffer.alloc(6), Buffer.from("64600001", "hex")]);
const ping = fromGuest((frames) => {
  const at = frames.begin(0x0800, 28 + 20);
  Buffer.from("450000300000400040010000646000026460000108000000000100026162636465666768696a6b6c6d6e6f7071727374", "hex").copy(frames.target, at);
  frames.target.writeUInt16BE(checksumOf(addBytes(frames.target, at, at + 20)), at + 10);
  frames.target.writeUInt16BE(checksumOf(addBytes(frames.target, at + 20, at + 48)), at + 22);
});

function makeGateway(port: number) {
  const cable = new Cable();
  const audit = new Audit(undefined, () => {});
  const gateway = new Gateway({
    socket: cable as unknown as Socket,
    hook: { ...allowAll, checksHellos: true },
    audit,
    secrets: new Secrets([]),
    resolve: async () => ({ code: 0, addresses: ["203.0.113.5"], records: [{ type: 1, ttlSeconds: 1, data: Buffer.from([203, 0, 113, 5]) }] }),
    dial: () => dialDirectly("127.0.0.1", port),
    dialDatagrams: () => {
      const socket = createSocket("udp4");
      socket.connect(port, "127.0.0.1");
      return socket;
    },
    resume: () => {},
  });
  return { cable, gateway, audit };
}

async function withGateway(run: (made: ReturnType<typeof makeGateway>) => Promise<void> | void): Promise<void> {
  const echo = createServer({ allowHalfOpen: true }, (socket) => void socket.on("error", () => {}).pipe(socket)).listen(0, "127.0.0.1");
  await once(echo, "listening");
  const made = makeGateway((echo.address() as AddressInfo).port);
  try {
    await run(made);
  } finally {
    made.gateway.close();
    echo.close();
  }
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 50));

/** Correct checksums again, so that what was changed is looked at. */
function mend(frame: Buffer): void {
  if (frame.length < 34 || frame.readUInt16BE(12) !== 0x0800) return;
  frame.writeUInt16BE(0, 24);
  frame.writeUInt16BE(checksumOf(addBytes(frame, 14, 34)), 24);
  const end = Math.min(frame.length, 14 + frame.readUInt16BE(16));
  const at = frame[23] === 6 ? 50 : frame[23] === 17 ? 40 : undefined;
  if (at === undefined || at + 2 > end) return;
  frame.writeUInt16BE(0, at);
  frame.writeUInt16BE(checksumOf(addBytes(frame, 34, end, pseudoHeader(frame.readUInt32BE(26), frame.readUInt32BE(30), frame[23]!, end - 34))), at);
}

test("changed frames", () => withGateway(async ({ cable, gateway, audit }) => {
  const samples = [arp, ping, syn(80), syn(443), datagram(53, question("www.example.org"), link.gateway), datagram(9, Buffer.from("hello")), datagram(67, Buffer.concat([Buffer.from("0101060012345678", "hex"), Buffer.alloc(228), Buffer.from("63825363350101ff", "hex")]), link.gateway)];
  for (let round = 0; round < 20_000; round++) {
    const random = seeded(round);
    let frame = Buffer.from(samples[random(samples.length)]!);
    for (let change = random(4); change > 0; change--) frame[random(frame.length)] = random(256);
    if (random(5) === 0) frame = frame.subarray(0, 14 + random(frame.length - 13));
    if (random(2) === 0) mend(frame);
    gateway.receive(framed(frame));
    if (round % 1000 === 0) await settle();
  }
  await settle();
  expect(cable.destroyed).toBe(false);
  expect(audit.counters.connectionsOpen).toBeLessThanOrEqual(4096 + 1024);
  for (const frame of cable.frames) expect(frame.subarray(0, 12).equals(Buffer.concat([link.guestMac, link.gatewayMac]))).toBe(true);
}));

test("frames come in any pieces, and a length that can't be ends it", () => withGateway(({ cable, gateway }) => {
  const bytes = framed(arp, ping, arp);
  for (let at = 1; at < bytes.length; at++) {
    gateway.receive(bytes.subarray(0, at));
    gateway.receive(bytes.subarray(at));
  }
  for (const byte of bytes) gateway.receive(Buffer.from([byte]));
  expect(cable.frames.length).toBe(3 * bytes.length);
  expect(cable.frames.slice(0, 3).map((frame) => frame.readUInt16BE(12).toString(16))).toEqual(["806", "800", "806"]);
  gateway.receive(Buffer.from([0, 1, 0x10, 1]));
  expect(cable.destroyed).toBe(true);
  expect(new FrameReader().push(Buffer.from([0, 0, 0, 13]), () => {})).toBe(false);
  expect(new FrameReader().push(Buffer.from([0xff, 0xff, 0xff, 0xff]), () => {})).toBe(false);
}));

test("what is not from the guest's card and address, or is no plain packet, is not heard", () => withGateway(async ({ cable, gateway, audit }) => {
  const good = syn(80);
  const change = (at: number, ...bytes: number[]) => {
    const frame = Buffer.from(good);
    frame.set(bytes, at);
    mend(frame);
    return frame;
  };
  const options = Buffer.concat([good.subarray(0, 34), Buffer.from("8307040a0000010 0".replace(" ", ""), "hex"), good.subarray(34)]); // loose source route
  options[14] = 0x47;
  options.writeUInt16BE(options.length - 14, 16);
  options.writeUInt16BE(0, 24);
  options.writeUInt16BE(checksumOf(addBytes(options, 14, 42)), 24);
  gateway.receive(framed(
    change(6, 2), // another card
    change(0, 2), // for somebody else
    change(26, 10, 0, 0, 1), // another address
    change(26, 127, 0, 0, 1),
    change(12, 0x86, 0xdd), // IPv6
    change(12, 0x81, 0x00), // a VLAN
    change(14, 0x65), // IPv6 said to be IPv4
    change(20, 0x20, 0), // a fragment, and the ones behind it
    change(20, 0, 1),
    options,
  ));
  await settle();
  expect(cable.frames).toEqual([]);
  expect(audit.counters.connectionsTotal).toBe(0);
  gateway.receive(framed(good));
  expect(audit.counters.connectionsTotal).toBe(1);
}));

test("a guest that takes nothing is not read, and nothing is piled up for it", () => withGateway(async ({ cable, gateway }) => {
  cable.takes = false;
  const many = framed(...Array.from({ length: 100 }, () => ping));
  let rounds = 0;
  while (gateway.receive(many)) if (++rounds > 10_000) throw new Error("never held up");
  const before = cable.bytes;
  expect(before).toBeLessThan(1_200_000);
  cable.takes = true;
  cable.take();
  expect(gateway.receive(many)).toBe(true);
}));

test("no more connections and conversations than may be", () => withGateway(async ({ gateway, audit }) => {
  for (let port = 0; port < 6000; port++) {
    gateway.receive(framed(syn(80, 1024 + port)));
    gateway.receive(framed(fromGuest((frames) => sendDatagram(frames, link.guest, 1024 + port, 99, Buffer.from("x"), server))));
    if (port % 500 === 0) await settle();
  }
  expect(audit.counters.connectionsOpen).toBeLessThanOrEqual(4096 + 1024);
  expect(audit.lastRefusals.at(-1)).toMatchObject({ protocol: "tcp", rule: "limit", reason: "more than 4096 connections at once (maxConnections)" });
}));

test("DNS messages, changed and cut", () => {
  const samples = [question("www.example.org"), question("a.b.c.d.example", 28), question(`${"x".repeat(63)}.org`, 16)];
  for (let round = 0; round < 20_000; round++) {
    const random = seeded(round);
    let message = Buffer.from(samples[random(samples.length)]!);
    for (let change = random(4); change > 0; change--) message[random(message.length)] = random(256);
    if (random(3) === 0) message = message.subarray(0, random(message.length + 1));
    const parsed = parseQuestion(message);
    if (parsed === undefined || "code" in parsed) continue;
    expect(parsed.name.length).toBeLessThan(256);
    expect(parsed.name).toMatch(/^[!-~]*$/);
    const answer = encodeAnswer(parsed, 0, Array.from({ length: 64 }, () => ({ type: 1, ttlSeconds: 1, data: Buffer.alloc(4) })));
    const fitted = fitDatagram(answer, parsed);
    expect(fitted.length).toBeLessThanOrEqual(parsed.maxBytes);
  }
  const [small] = samples;
  expect(parseQuestion(small!)).toMatchObject({ id: 1, name: "www.example.org", type: 1, recursionDesired: true, edns: true, maxBytes: 512 });
  const loop = Buffer.from("0001010000010000000000000161c00c00010001", "hex"); // a name that points to itself
  expect(parseQuestion(loop)).toEqual({ id: 1, code: 1 });
});

test("the cable's blocks are used again", async () => {
  const cable = new Cable();
  const made = new Link(cable as unknown as Socket, { guest: link.guestMac, gateway: link.gatewayMac }, { begun() {}, drained() {} });
  for (let round = 0; round < 50; round++) {
    for (let frame = 0; frame < 100; frame++) {
      const at = made.begin(0x0800, 9000);
      made.target.writeUInt32BE(round * 100 + frame, at);
    }
    made.flush();
    await new Promise(setImmediate);
  }
  expect(cable.frames.map((frame) => frame.readUInt32BE(14))).toEqual(Array.from({ length: 5000 }, (_, index) => index));
});
