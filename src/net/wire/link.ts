/**
 * The guest's cable: Ethernet frames over a stream socket, each behind its length (4 bytes, big-endian), as QEMU's `-netdev stream` has it.
 *
 * What is written is gathered in blocks until `flush`. Nothing is refused here: whoever makes frames looks at
 * `congested` first, and the guest's frames are not read while what they caused is not taken.
 */
import { writeSync } from "node:fs";
import type { Socket } from "node:net";

/** More is no frame: QEMU's own limit is 4096 + 65536 (`NET_BUFSIZE`). */
export const maxFrameBytes = 69_632;
/** An Ethernet header and nothing behind it. */
const minFrameBytes = 14;
const lengthBytes = 4;
const ethernetBytes = 14;
const blockBytes = 262_144;
/** With more than this on its way the link is congested: the guest, or QEMU, does not take what we send. */
const maxPendingBytes = 1_048_576;
/** Blocks that are kept for the next time. */
const maxSpareBlocks = 4;

interface Block {
  bytes: Buffer;
  used: number;
  flushed: number;
  writes: number;
}

/** Cuts bytes into frames. What is kept between chunks is at most one frame; only a frame that is split is copied. */
export class FrameReader {
  readonly #kept = Buffer.allocUnsafeSlow(lengthBytes + maxFrameBytes);
  #keptBytes = 0;

  /** Calls `take` with each whole frame, as a range of a buffer that is valid during the call alone. False if a length is absurd: the stream is lost then. */
  push(chunk: Buffer, take: (bytes: Buffer, start: number, end: number) => void): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#keptBytes > 0) {
        const missing = this.#keptBytes < lengthBytes ? lengthBytes - this.#keptBytes : lengthBytes + this.#kept.readUInt32BE(0) - this.#keptBytes;
        const taken = Math.min(missing, chunk.length - at);
        chunk.copy(this.#kept, this.#keptBytes, at, at + taken);
        this.#keptBytes += taken;
        at += taken;
        if (this.#keptBytes < lengthBytes) return true;
        const length = this.#kept.readUInt32BE(0);
        if (length < minFrameBytes || length > maxFrameBytes) return false;
        if (this.#keptBytes < lengthBytes + length) continue;
        this.#keptBytes = 0;
        take(this.#kept, lengthBytes, lengthBytes + length);
        continue;
      }
      if (chunk.length - at < lengthBytes) return this.#keep(chunk, at);
      const length = chunk.readUInt32BE(at);
      if (length < minFrameBytes || length > maxFrameBytes) return false;
      if (chunk.length - at < lengthBytes + length) return this.#keep(chunk, at);
      take(chunk, at + lengthBytes, at + lengthBytes + length);
      at += lengthBytes + length;
    }
    return true;
  }

  #keep(chunk: Buffer, at: number): true {
    this.#keptBytes = chunk.copy(this.#kept, 0, at);
    return true;
  }
}

/** Where frames for the guest are written. */
export interface FrameSink {
  /** Starts a frame of `payloadBytes` behind its Ethernet header; the caller fills in `target` from the offset that is returned, at once. */
  begin(etherType: number, payloadBytes: number): number;
  /** The buffer that the frame begun last is in. */
  readonly target: Buffer;
  /** The guest does not take what was sent: nothing is to be sent that can wait. */
  readonly congested: boolean;
}

export interface LinkEvents {
  /** The first frame since the last `flush` was begun. */
  begun(): void;
  /** `congested` has become false. */
  drained(): void;
}

export class Link implements FrameSink {
  readonly #socket: Socket;
  readonly #descriptor: number | undefined;
  readonly #header: Buffer;
  readonly #events: LinkEvents;
  #block: Block = newBlock();
  readonly #spare: Block[] = [];
  #pendingBytes = 0;
  #waiting = false;

  /** `descriptor` is the socket's own, if it is known. */
  constructor(socket: Socket, macs: { guest: Buffer; gateway: Buffer }, events: LinkEvents, descriptor?: number) {
    this.#socket = socket;
    this.#descriptor = descriptor;
    this.#header = Buffer.concat([macs.guest, macs.gateway]);
    this.#events = events;
  }

  get target(): Buffer {
    return this.#block.bytes;
  }

  get congested(): boolean {
    if (this.#pendingBytes <= maxPendingBytes) return false;
    this.#waiting = true;
    return true;
  }

  begin(etherType: number, payloadBytes: number): number {
    const frameBytes = ethernetBytes + payloadBytes;
    if (this.#block.used + lengthBytes + frameBytes > blockBytes) {
      this.flush();
      if (this.#block.used > 0) this.#block = this.#spare.pop() ?? newBlock();
    }
    const { bytes, used, flushed } = this.#block;
    if (used === flushed) this.#events.begun();
    bytes.writeUInt32BE(frameBytes, used);
    bytes.set(this.#header, used + lengthBytes);
    bytes[used + 16] = etherType >>> 8;
    bytes[used + 17] = etherType;
    this.#block.used = used + lengthBytes + frameBytes;
    this.#pendingBytes += lengthBytes + frameBytes;
    return used + lengthBytes + ethernetBytes;
  }

  /** Hands what was written to the socket. */
  flush(): void {
    const block = this.#block;
    let bytes = block.used - block.flushed;
    if (bytes === 0) return;
    const taken = this.#writeNow(block);
    block.flushed += taken;
    bytes -= taken;
    this.#pendingBytes -= taken;
    if (bytes === 0) {
      if (block.writes === 0) block.used = block.flushed = 0;
      return;
    }
    block.writes++;
    this.#socket.write(block.bytes.subarray(block.flushed, block.used), () => this.#written(block, bytes));
    block.flushed = block.used;
  }

  /** How many bytes the socket has taken at once. A stream's machinery costs as much as the system call, and what waits for the packet waits for it. */
  #writeNow({ bytes, flushed, used }: Block): number {
    if (this.#descriptor === undefined || this.#socket.destroyed || this.#socket.writableLength > 0) return 0;
    try {
      return writeSync(this.#descriptor, bytes, flushed, used - flushed);
    } catch {
      return 0; // it is full, or gone: the stream waits, or tells
    }
  }

  #written(block: Block, bytes: number): void {
    this.#pendingBytes -= bytes;
    block.writes--;
    if (block.writes === 0 && block.flushed === block.used) {
      block.used = block.flushed = 0;
      if (block !== this.#block && this.#spare.length < maxSpareBlocks) this.#spare.push(block);
    }
    if (this.#waiting && this.#pendingBytes <= maxPendingBytes / 2) {
      this.#waiting = false;
      this.#events.drained();
    }
  }
}

function newBlock(): Block {
  return { bytes: Buffer.allocUnsafeSlow(blockBytes), used: 0, flushed: 0, writes: 0 };
}
