/** TCP segments (RFC 9293, 3.1): bytes to fields and back. */
import { addBytes, checksumOf, pseudoHeader } from "../wire/checksum.js";
import { beginIpv4, protocols, writeUint16, writeUint32, type Ipv4Packet } from "../wire/ipv4.js";
import type { FrameSink } from "../wire/link.js";
import type { ByteQueue } from "./byte-queue.js";

export const Flag = { fin: 0x01, syn: 0x02, rst: 0x04, psh: 0x08, ack: 0x10 } as const;

export const tcpHeaderBytes = 20;
/** What a peer takes that names no maximum (RFC 9293, 3.7.1). */
const defaultMssBytes = 536;
/** Linux's own least: a peer that names less would have each byte sent in a packet of its own. */
const minMssBytes = 88;
/** RFC 7323, 2.3. */
const maxWindowShift = 14;

/** The segment that was read last; one object for all, as it is made for each frame. Sequence numbers are signed 32-bit numbers: what counts is their difference. */
export class Segment {
  source = 0;
  destination = 0;
  sourcePort = 0;
  destinationPort = 0;
  sequence = 0;
  acknowledgment = 0;
  flags = 0;
  /** As it stands in the header, not scaled. */
  window = 0;
  /** Where the data is; valid while the frame is handled. */
  bytes: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;
  /** Of a SYN. */
  mssBytes = defaultMssBytes;
  /** Of a SYN: undefined if its sender does not scale windows. */
  windowShift: number | undefined;

  /** False for what is no segment: lengths that aren't there, a wrong checksum, a port 0. */
  read({ bytes, payload, end, source, destination }: Ipv4Packet): boolean {
    const length = end - payload;
    if (length < tcpHeaderBytes) return false;
    const headerBytes = (bytes[payload + 12]! >>> 4) * 4;
    if (headerBytes < tcpHeaderBytes || headerBytes > length) return false;
    if (checksumOf(addBytes(bytes, payload, end, pseudoHeader(source, destination, protocols.tcp, length))) !== 0) return false;
    this.source = source;
    this.destination = destination;
    this.sourcePort = bytes.readUInt16BE(payload);
    this.destinationPort = bytes.readUInt16BE(payload + 2);
    if (this.sourcePort === 0 || this.destinationPort === 0) return false;
    this.sequence = bytes.readInt32BE(payload + 4);
    this.acknowledgment = bytes.readInt32BE(payload + 8);
    this.flags = bytes[payload + 13]!;
    this.window = bytes.readUInt16BE(payload + 14);
    this.bytes = bytes;
    this.start = payload + headerBytes;
    this.end = end;
    if ((this.flags & Flag.syn) !== 0) this.#readOptions(payload + tcpHeaderBytes, payload + headerBytes);
    return true;
  }

  /** What the segment takes up of the sequence: its data, and SYN and FIN as if they were a byte each. */
  get length(): number {
    return this.end - this.start + (this.flags & Flag.syn ? 1 : 0) + (this.flags & Flag.fin ? 1 : 0);
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  #readOptions(at: number, end: number): void {
    this.mssBytes = defaultMssBytes;
    this.windowShift = undefined;
    while (at < end) {
      const kind = this.bytes[at]!;
      if (kind === 0) return;
      if (kind === 1) {
        at++;
        continue;
      }
      const length = at + 1 < end ? this.bytes[at + 1]! : 0;
      if (length < 2 || at + length > end) return;
      if (kind === 2 && length === 4) this.mssBytes = Math.max(minMssBytes, this.bytes.readUInt16BE(at + 2));
      if (kind === 3 && length === 3) this.windowShift = Math.min(maxWindowShift, this.bytes[at + 2]!);
      at += length;
    }
  }
}

export interface SegmentFields {
  source: number;
  sourcePort: number;
  destination: number;
  destinationPort: number;
  sequence: number;
  acknowledgment: number;
  flags: number;
  window: number;
}

/** Sends a segment with `dataBytes` from `offset` of `queue`. */
export function sendSegment(sink: FrameSink, fields: SegmentFields, queue?: ByteQueue, offset = 0, dataBytes = 0): void {
  const at = beginSegment(sink, fields, tcpHeaderBytes, dataBytes);
  if (dataBytes > 0) queue!.copyTo(sink.target, at + tcpHeaderBytes, offset, dataBytes);
  finishSegment(sink, fields, at, tcpHeaderBytes + dataBytes);
}

/** Sends a SYN, which alone has options. */
export function sendSyn(sink: FrameSink, fields: SegmentFields, mssBytes: number, windowShift: number | undefined): void {
  const headerBytes = tcpHeaderBytes + (windowShift === undefined ? 4 : 8);
  const at = beginSegment(sink, fields, headerBytes, 0);
  const bytes = sink.target;
  writeUint16(bytes, at + 20, 0x0204);
  writeUint16(bytes, at + 22, mssBytes);
  if (windowShift !== undefined) writeUint32(bytes, at + 24, 0x01030300 | windowShift);
  finishSegment(sink, fields, at, headerBytes);
}

/** Answers a segment of no connection (RFC 9293, 3.10.7.1). */
export function sendReset(sink: FrameSink, segment: Segment): void {
  if (segment.has(Flag.rst)) return;
  const answers = segment.has(Flag.ack);
  sendSegment(sink, {
    source: segment.destination,
    sourcePort: segment.destinationPort,
    destination: segment.source,
    destinationPort: segment.sourcePort,
    sequence: answers ? segment.acknowledgment : 0,
    acknowledgment: answers ? 0 : segment.sequence + segment.length,
    flags: answers ? Flag.rst : Flag.rst | Flag.ack,
    window: 0,
  });
}

function beginSegment(sink: FrameSink, fields: SegmentFields, headerBytes: number, dataBytes: number): number {
  const at = beginIpv4(sink, protocols.tcp, fields.source, fields.destination, headerBytes + dataBytes);
  const bytes = sink.target;
  writeUint16(bytes, at, fields.sourcePort);
  writeUint16(bytes, at + 2, fields.destinationPort);
  writeUint32(bytes, at + 4, fields.sequence);
  writeUint32(bytes, at + 8, fields.acknowledgment);
  bytes[at + 12] = headerBytes << 2;
  bytes[at + 13] = fields.flags;
  writeUint16(bytes, at + 14, fields.window);
  writeUint32(bytes, at + 16, 0);
  return at;
}

function finishSegment(sink: FrameSink, fields: SegmentFields, at: number, lengthBytes: number): void {
  const bytes = sink.target;
  writeUint16(bytes, at + 16, checksumOf(addBytes(bytes, at, at + lengthBytes, pseudoHeader(fields.source, fields.destination, protocols.tcp, lengthBytes))));
}
