// Streams in both directions through a guest that loses, repeats, reorders and overlaps what it sends, and loses and half-reads what it gets.
// Whatever it does, each side gets the bytes of the other, all and in order.
import { expect, test } from "vitest";
import { seeded } from "../environments/fixtures.js";
import { Peer } from "./peer.js";

const bytes = 20_000;
const maxTurns = 20_000;

test.each(Array.from({ length: 40 }, (_, index) => index))("streams arrive whole, round %i", (round) => {
  const random = seeded(round + 1);
  const up = Buffer.from(Array.from({ length: bytes }, () => random(256)));
  const down = Buffer.from(Array.from({ length: bytes }, () => random(256)));
  const peer = new Peer({ own: -random(bytes) - 1, theirs: 0x7fff_ffff - random(bytes) });
  const mss = 88 + random(1400);
  peer.consumes = false;
  peer.share = 1000 + random(20_000);
  peer.open({ mss, windowShift: random(2) === 0 ? null : 0, window: random(5000) });

  let acked = 0; // of what the guest sent
  let allowed = peer.share;
  let got = 0; // of what it was sent
  let window = 1000;
  let given = 0; // to the endpoint, to be sent
  let consumed = 0;
  let isFull = false;
  let endsSent = false;
  let endSeen = false;
  const seen = () => {
    for (const each of peer.take()) {
      if (random(5) === 0) continue; // the guest had no memory for it
      acked = Math.max(acked, each.acknowledgment);
      allowed = Math.max(allowed, each.acknowledgment + each.window);
      const fresh = each.sequence <= got ? each.data.slice(got - each.sequence) : "";
      const taken = Buffer.from(fresh, "latin1").subarray(0, window);
      expect(down.compare(taken, 0, taken.length, got, got + taken.length)).toBe(0);
      got += taken.length;
      if (each.flags.includes("F") && each.sequence + each.data.length === got && got === bytes) endSeen = true;
    }
  };

  let turns = 0;
  for (; !peer.events.includes("closed") && peer.endpoint.state !== "time-wait"; turns++) {
    if (turns > maxTurns) throw new Error(`no end: acknowledged ${acked}, got ${got} of ${bytes}, ${peer.endpoint.state}`);
    const acknowledgment = got + (endSeen ? 1 : 0);
    switch (random(7)) {
      case 0:
      case 1: { // from somewhere around what is acknowledged, also what was sent before or is too early
        const from = Math.max(0, Math.min(acked, bytes) + random(3) * (random(400) - 150));
        const to = Math.min(bytes, from + random(800), random(8) === 0 ? bytes : allowed);
        if (to > from) peer.send(random(9) === 0 && to === bytes ? "AF" : "A", { sequence: from, acknowledgment, window, data: up.subarray(from, to) });
        break;
      }
      case 2: {
        if (acked >= bytes) peer.send("AF", { sequence: bytes, acknowledgment, window });
        break;
      }
      case 3: {
        window = random(3) === 0 ? 0 : random(4000);
        peer.send("A", { sequence: Math.min(acked, bytes + 1), acknowledgment, window });
        break;
      }
      case 4: {
        isFull &&= !peer.events.includes("drained");
        if (isFull) break;
        const part = down.subarray(given, given + random(2000));
        given += part.length;
        peer.events.splice(0, peer.events.length, ...peer.events.filter((each) => each !== "drained"));
        if (part.length > 0) isFull = !peer.endpoint.send(part);
        if (given === bytes && !endsSent) {
          endsSent = true;
          peer.endpoint.end();
        }
        break;
      }
      case 5: {
        const part = random(peer.received.length - consumed + 1);
        consumed += part;
        if (part > 0) peer.endpoint.consumed(part);
        break;
      }
      default: {
        peer.pass(random(3000));
      }
    }
    seen();
    expect(peer.received.length - consumed).toBeLessThanOrEqual(Math.max(peer.share, 65_535));
  }
  expect(peer.received.equals(up)).toBe(true);
  expect(got).toBe(bytes);
  expect(peer.events.filter((each) => each === "reset")).toEqual([]);
});

test("no segment makes it throw, or hold more than it may", () => {
  for (let round = 0; round < 300; round++) {
    const random = seeded(round + 1000);
    const peer = new Peer({ own: random(2 ** 32) | 0, theirs: random(2 ** 32) | 0 });
    peer.share = 5000;
    peer.consumes = false;
    const state = random(10);
    if (state === 0) peer.endpoint.connect();
    else if (state === 1) peer.syn();
    else peer.open({ mss: random(65_536), windowShift: random(2) === 0 ? null : random(256), window: random(65_536) });
    const near = () => random(2) === 0 ? random(20_000) - 10_000 : random(2 ** 32) | 0;
    for (let step = 0; step < 100; step++) {
      const flags = [..."SAFRP"].filter(() => random(5) < 2).join("") || "A";
      peer.send(random(4) === 0 ? flags : "A", { sequence: random(3) === 0 ? near() : peer.received.length, acknowledgment: random(3) === 0 ? near() : 0, window: random(65_536), data: "x".repeat(random(3) * random(3000)) });
      if (random(4) === 0) peer.endpoint.send(Buffer.alloc(random(3000)));
      if (random(50) === 0) peer.endpoint.end();
      if (random(10) === 0) peer.pass(random(10_000));
      expect(peer.take().length).toBeLessThan(200);
    }
    expect(peer.received.length).toBeLessThanOrEqual(65_535 + 5000);
  }
});
