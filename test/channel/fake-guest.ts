/** A stand-in for a guest: the far end of a pair of streams, and a script that answers. It is not the real guest program. */
import { Duplex } from "node:stream";
import { FrameDecoder, FrameType, encodeFrame, hostFrames, type Frame } from "../../src/channel/codec.js";
import { connectChannel, type Channel } from "../../src/channel/index.js";
import { encodeMessage, parseMessage, u16 } from "../../src/channel/message.js";

export class FakeGuest {
  readonly port: Duplex;
  readonly frames: Frame[] = [];
  onFrame: (frame: Frame) => void = () => {};
  readonly #decoder = new FrameDecoder(hostFrames);
  #reads = true;

  constructor() {
    this.port = new Duplex({
      writableHighWaterMark: 16_384, // Node's own differs from version to version
      read() {},
      write: (chunk: Buffer, _encoding, callback) => {
        this.#decoder.push(chunk, (frame) => {
          if (frame.type === FrameType.SYNC) return this.#hello(frame);
          this.frames.push(frame);
          this.onFrame(frame);
        });
        if (this.#reads) callback();
      },
    });
  }

  /** From now on nothing more is taken from the host. */
  stopReading(): void {
    this.#reads = false;
  }

  /** Bytes the host has written that were not taken. */
  unread(): number {
    return this.port.writableLength;
  }

  say(bytes: Uint8Array): void {
    this.port.push(bytes);
  }

  send(type: number, stream: number, payload?: Uint8Array): void {
    this.say(encodeFrame(type, stream, payload));
  }

  #hello({ payload }: Frame): void {
    const nonce = parseMessage(payload, "SYNC", ["VERSION_MIN", "VERSION_MAX", "NONCE"]).get("NONCE")!;
    this.send(FrameType.HELLO, 0, encodeMessage([["VERSION", u16(1)], ["NONCE", nonce], ["KERNEL", Buffer.from("6.1\x1b[2J")], ["PROGRAM", Buffer.from("2.1.0")]]));
  }
}

export async function connected(): Promise<{ guest: FakeGuest; channel: Channel }> {
  const guest = new FakeGuest();
  return { guest, channel: await connectChannel(guest.port, { fresh: true, deadlineMs: 120_000 }) };
}

/** Resolves when everything that was said so far has been heard. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(() => setImmediate(resolve))));
}
