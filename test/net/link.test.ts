// The cable, to the guest: what its socket takes at once goes past the stream, and in order with what does not.
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { link } from "../../src/net/addresses.js";
import { Link } from "../../src/net/wire/link.js";

const frame = (text: string) => `\0\0\0\u0010${link.guestMac.toString("latin1")}${link.gatewayMac.toString("latin1")}\u0008\0${text}`;

class Cable {
  writableLength = 0;
  destroyed = false;
  streamed = "";
  readonly done: (() => void)[] = [];

  write(bytes: Buffer, done: () => void): void {
    this.streamed += bytes.toString("latin1");
    this.done.push(done);
  }
}

let directory: string;
let descriptor: number;
let cable: Cable;
let made: Link;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-link-"));
  descriptor = openSync(join(directory, "out"), "w");
  cable = new Cable();
  made = new Link(cable as unknown as Socket, { guest: link.guestMac, gateway: link.gatewayMac }, { begun() {}, drained() {} }, descriptor);
});
afterEach(() => {
  closeSync(descriptor);
  rmSync(directory, { recursive: true });
});

function send(text: string): void {
  const at = made.begin(0x0800, text.length);
  made.target.write(text, at, "latin1");
}

const out = () => readFileSync(join(directory, "out"), "latin1");

test("at once, and once for all frames", () => {
  send("ab");
  send("cd");
  expect(out()).toBe("");
  made.flush();
  made.flush();
  expect(out()).toBe(frame("ab") + frame("cd"));
  expect(cable.streamed).toBe("");
});

test("behind what the stream has not got rid of, by the stream", () => {
  cable.writableLength = 1;
  send("ab");
  made.flush();
  expect([out(), cable.streamed]).toEqual(["", frame("ab")]);
  cable.writableLength = 0;
  send("cd");
  made.flush();
  expect([out(), cable.streamed]).toEqual([frame("cd"), frame("ab")]);
});

test("nothing to a descriptor that may be somebody else's by now", () => {
  cable.destroyed = true;
  send("ab");
  made.flush();
  expect([out(), cable.streamed]).toEqual(["", frame("ab")]);
});

test("what can't be written waits in the stream", () => {
  const closed = openSync(join(directory, "other"), "w");
  made = new Link(cable as unknown as Socket, { guest: link.guestMac, gateway: link.gatewayMac }, { begun() {}, drained() {} }, closed);
  closeSync(closed);
  send("ab");
  made.flush();
  expect(cable.streamed).toBe(frame("ab"));
});

test("blocks that were written at once are used again, also those that were full", () => {
  const { target } = made;
  for (let round = 0; round < 3; round++) {
    for (let each = 0; each < 40; each++) send("x".repeat(9000));
    made.flush();
  }
  expect(made.target).toBe(target);
  expect(out()).toHaveLength(3 * 40 * (4 + 14 + 9000));
  expect(made.congested).toBe(false);
});
