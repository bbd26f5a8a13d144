/** ICMP (RFC 792): the gateway answers pings for itself, and says of what does not get through that it did not. */
import { link } from "../addresses.js";
import { addBytes, checksumOf } from "./checksum.js";
import { beginIpv4, ipv4HeaderBytes, protocols, type Ipv4Packet } from "./ipv4.js";
import type { FrameSink } from "./link.js";

/** Codes of "destination unreachable" (RFC 792; RFC 1812, 5.2.7.1). */
export const unreachable = { network: 0, host: 1, port: 3, prohibited: 13 } as const;

const headerBytes = 8;
const echoReply = 0;
const echoRequest = 8;
/** How much of the packet in question an error brings back (RFC 1812, 4.3.2.3). */
const maxQuotedBytes = 548;

/** Answers a ping of the gateway. False if it is none. */
export function answerEcho(sink: FrameSink, packet: Ipv4Packet): boolean {
  const { bytes, payload, end } = packet;
  if (end - payload < headerBytes || bytes[payload] !== echoRequest || bytes[payload + 1] !== 0) return false;
  if (checksumOf(addBytes(bytes, payload, end)) !== 0) return false;
  const at = beginIpv4(sink, protocols.icmp, packet.destination, packet.source, end - payload);
  bytes.copy(sink.target, at, payload, end);
  finish(sink.target, at, end - payload, echoReply, 0);
  return true;
}

/** Whether `packet` is a ping. */
export function isEcho({ bytes, payload, end }: Ipv4Packet): boolean {
  return end - payload >= headerBytes && bytes[payload] === echoRequest;
}

/** Tells the guest that `quoted`, a packet of its own from the IPv4 header on, did not reach its destination. */
export function sendUnreachable(sink: FrameSink, code: number, quoted: Buffer): void {
  const quotedBytes = Math.min(quoted.length, maxQuotedBytes);
  const at = beginIpv4(sink, protocols.icmp, link.gateway, link.guest, headerBytes + quotedBytes);
  sink.target.fill(0, at, at + headerBytes);
  quoted.copy(sink.target, at + headerBytes, 0, quotedBytes);
  finish(sink.target, at, headerBytes + quotedBytes, 3, code);
}

/** The header of a packet that the guest sent, with the first 8 bytes behind it: what an error has to bring back at least. */
export function quoteOf({ bytes, start, end }: Ipv4Packet): Buffer {
  return Buffer.from(bytes.subarray(start, Math.min(end, start + ipv4HeaderBytes + 8)));
}

function finish(bytes: Buffer, at: number, lengthBytes: number, type: number, code: number): void {
  bytes[at] = type;
  bytes[at + 1] = code;
  bytes.writeUInt16BE(0, at + 2);
  bytes.writeUInt16BE(checksumOf(addBytes(bytes, at, at + lengthBytes)), at + 2);
}
