// How fast a command's output comes out of a guest and its standard input goes in. Floor: a guest of the same kind, forked from the same template by bare
// QEMU, and the same command, spoken to in the protocol's bytes by hand: frames are counted and dropped, or written from one buffer, and credit is given
// generously (16 MiB where pyro gives 256 KiB). They take turns, so a busy machine hits both. Megabytes (10^6) by MB, pairs by PAIRS.
import { once } from "node:events";
import { Readable, Writable } from "node:stream";
import { execInVm } from "../dist/core/exec.js";
import { startVm } from "../dist/core/start.js";
import { openEnvironment } from "../dist/environments/index.js";
import { exec, frame, sync } from "./ask-true.mjs";
import { findTemplate, forkBare } from "./bare-qemu.mjs";
import { median } from "./statistics.mjs";

const pairs = Number(process.env.PAIRS ?? 7);
const bytes = Number(process.env.MB ?? 100) * 1e6;
const name = "debian:12";
const memMib = 1024;
const produce = ["/usr/bin/head", "-c", String(bytes), "/dev/zero"];
const consume = ["/usr/bin/wc", "-c"];
const maxPayload = 65_536;
const window = 262_144;
const maxCredit = 16_777_216;

const vm = await startVm({ environment: name, vcpuCount: 1, memMib, ttlSeconds: 600 });
const environment = await openEnvironment(name);
const bare = forkBare(environment, findTemplate(environment.digest, memMib), { accelerator: vm.accelerator, memMib });
try {
  const byHand = speak(bare.port);
  await report("output, guest to host", () => byHand.output(), sdkOutput);
  await report("standard input, host to guest", () => byHand.input(), sdkInput);
} finally {
  await bare.end();
  await vm.end();
}

async function report(what, floor, sdk) {
  const rates = { floor: [], sdk: [] };
  const turns = [["floor", floor], ["sdk", sdk]];
  for (const [, turn] of turns) await turn(); // the first of each is translated and read from disk
  for (let pair = 0; pair < pairs; pair++) {
    for (const [whose, turn] of turns) {
      const begin = performance.now();
      await turn();
      rates[whose].push(bytes / 1000 / (performance.now() - begin));
    }
    turns.reverse();
  }
  const show = (of) => `${median(of).toFixed(0)} MB/s (${Math.min(...of).toFixed(0)} to ${Math.max(...of).toFixed(0)})`;
  console.log(`${what}, ${pairs} times ${bytes / 1e6} MB: floor ${show(rates.floor)}, core ${show(rates.sdk)}; ratio pair by pair ${median(rates.sdk.map((rate, pair) => rate / rates.floor[pair])).toFixed(2)}`);
}

async function sdkOutput() {
  let got = 0;
  const stdout = new Writable({ write: (chunk, _encoding, done) => ((got += chunk.length), done()) });
  await execInVm(vm, name, { command: produce, timeoutSeconds: 120, captureBytes: 1024, stdout });
  check(got);
}

async function sdkInput() {
  const block = Buffer.alloc(maxPayload);
  let left = bytes;
  const stdin = new Readable({
    read() {
      if (left === 0) return this.push(null);
      const part = block.subarray(0, Math.min(left, block.length));
      left -= part.length;
      this.push(part);
    },
  });
  const { stdout } = await execInVm(vm, name, { command: consume, timeoutSeconds: 120, captureBytes: 1024, stdin });
  check(Number(stdout));
}

/** One command after the other on a port, by hand. */
function speak(port) {
  let stream = 0;
  let onFrame = () => {};
  let begun = Buffer.alloc(0);
  let type = 0;
  let left = 0;
  // Output is passed on in the pieces it comes in; everything else is put together.
  port.on("data", (chunk) => {
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const part = chunk.subarray(at, at + left);
        at += part.length;
        left -= part.length;
        onFrame(type, part);
        continue;
      }
      const whole = begun.length < 8 || begun[0] === 0x11 ? 8 : 8 + (begun.readUInt32LE(0) >>> 8);
      const more = chunk.subarray(at, at + whole - begun.length);
      begun = Buffer.concat([begun, more]);
      at += more.length;
      if (begun.length < 8) return;
      type = begun[0];
      const length = begun.readUInt32LE(0) >>> 8;
      if (type === 0x11) left = length;
      else if (begun.length < 8 + length) continue;
      else onFrame(type, begun.subarray(8));
      begun = Buffer.alloc(0);
    }
  });
  port.write(sync());
  const credit = (amount) => frame(0x21, stream, uint32(amount));
  return {
    output: async () => {
      port.write(exec(++stream, produce));
      port.write(credit(maxCredit - window));
      let got = 0;
      let owed = 0;
      await new Promise((resolve) => {
        onFrame = (type, part) => {
          if (type === 0x84) throw new Error(`the guest complains: ${part}`);
          if (type === 0x83) return resolve();
          if (type !== 0x11) return;
          got += part.length;
          owed += part.length;
          if (owed < maxCredit / 4) return;
          port.write(credit(owed));
          owed = 0;
        };
      });
      check(got);
    },
    input: async () => {
      const block = frame(0x10, ++stream, Buffer.alloc(maxPayload));
      port.write(exec(stream, consume, true));
      let sending = bytes;
      let allowed = window;
      let answer = "";
      let more = () => {};
      const result = new Promise((resolve) => {
        onFrame = (type, part) => {
          if (type === 0x84) throw new Error(`the guest complains: ${part}`);
          if (type === 0x83) resolve();
          else if (type === 0x11) answer += part;
          else if (type === 0x20) {
            allowed += part.readUInt32LE(0);
            more();
          }
        };
      });
      while (sending > 0) {
        const length = Math.min(sending, maxPayload);
        while (allowed < length) await new Promise((resolve) => (more = resolve));
        allowed -= length;
        sending -= length;
        if (!port.write(length === maxPayload ? block : frame(0x10, stream, Buffer.alloc(length)))) await once(port, "drain");
      }
      port.write(frame(0x18, stream, Buffer.alloc(0)));
      await result;
      check(Number(answer));
    },
  };
}

function uint32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function check(got) {
  if (got !== bytes) throw new Error(`${got} bytes instead of ${bytes}`);
}
