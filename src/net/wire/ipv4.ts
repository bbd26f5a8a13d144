/** IPv4 (RFC 791), as far as a guest with one interface and one gateway needs it: no options, no fragments. */
import { addBytes, checksumOf } from "./checksum.js";
import type { FrameSink } from "./link.js";

export const etherTypeIpv4 = 0x0800;
export const protocols = { icmp: 1, tcp: 6, udp: 17 } as const;

export const ipv4HeaderBytes = 20;

/** The packet that was read last; one object for all, as it is made for each frame. */
export class Ipv4Packet {
  bytes: Buffer = Buffer.alloc(0);
  /** Where its header begins. */
  start = 0;
  /** Where its payload begins and ends. */
  payload = 0;
  end = 0;
  source = 0;
  destination = 0;
  protocol = 0;

  /**
   * False for what is not taken: another version, a length that is not there, a wrong checksum; options, as one of them chooses the route
   * (RFC 7126, 4.4 says to drop it); and fragments, which nothing that is meant for us makes, as the path's MTU is the link's.
   */
  read(bytes: Buffer, start: number, end: number): boolean {
    if (end - start < ipv4HeaderBytes || bytes[start] !== 0x45) return false;
    const total = bytes.readUInt16BE(start + 2);
    if (total < ipv4HeaderBytes || start + total > end) return false;
    if ((bytes.readUInt16BE(start + 6) & 0xbfff) !== 0) return false; // all but "don't fragment"
    if (checksumOf(addBytes(bytes, start, start + ipv4HeaderBytes)) !== 0) return false;
    this.bytes = bytes;
    this.start = start;
    this.payload = start + ipv4HeaderBytes;
    this.end = start + total;
    this.protocol = bytes[start + 9]!;
    this.source = bytes.readUInt32BE(start + 12);
    this.destination = bytes.readUInt32BE(start + 16);
    return true;
  }
}

/** Starts a packet in a frame of its own; gives the offset in `sink.target` at which its payload goes. */
export function beginIpv4(sink: FrameSink, protocol: number, source: number, destination: number, payloadBytes: number): number {
  const at = sink.begin(etherTypeIpv4, ipv4HeaderBytes + payloadBytes);
  const bytes = sink.target;
  const total = ipv4HeaderBytes + payloadBytes;
  bytes[at] = 0x45;
  bytes[at + 1] = 0;
  writeUint16(bytes, at + 2, total);
  writeUint16(bytes, at + 4, 0); // no identification: the packet can't become fragments (RFC 6864, 4.1)
  writeUint16(bytes, at + 6, 0x4000);
  bytes[at + 8] = 64;
  bytes[at + 9] = protocol;
  writeUint16(bytes, at + 10, 0);
  writeUint32(bytes, at + 12, source);
  writeUint32(bytes, at + 16, destination);
  writeUint16(bytes, at + 10, checksumOf(addBytes(bytes, at, at + ipv4HeaderBytes)));
  return at + ipv4HeaderBytes;
}

// Buffer's own methods check their arguments at a price that shows with a million packets.
export function writeUint16(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function writeUint32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
