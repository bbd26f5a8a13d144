/** UDP (RFC 768): one datagram read, one written. */
import { link } from "../addresses.js";
import { addBytes, checksumOf, pseudoHeader } from "./checksum.js";
import { beginIpv4, ipv4HeaderBytes, protocols, writeUint16, type Ipv4Packet } from "./ipv4.js";
import type { FrameSink } from "./link.js";

const headerBytes = 8;
/** What fits into one packet on the link. What is longer is dropped, as there are no fragments. */
export const maxDatagramBytes = link.mtuBytes - ipv4HeaderBytes - headerBytes;

export interface Datagram {
  sourcePort: number;
  destinationPort: number;
  /** A view that is valid while the frame is handled. */
  data: Buffer;
}

/** Undefined for what is no datagram: lengths that aren't there, a wrong checksum, a port 0. */
export function readDatagram({ bytes, payload, end, source, destination }: Ipv4Packet): Datagram | undefined {
  if (end - payload < headerBytes) return undefined;
  const length = bytes.readUInt16BE(payload + 4);
  if (length < headerBytes || payload + length > end) return undefined;
  const hasChecksum = bytes.readUInt16BE(payload + 6) !== 0;
  if (hasChecksum && checksumOf(addBytes(bytes, payload, payload + length, pseudoHeader(source, destination, protocols.udp, length))) !== 0) return undefined;
  const sourcePort = bytes.readUInt16BE(payload);
  const destinationPort = bytes.readUInt16BE(payload + 2);
  if (sourcePort === 0 || destinationPort === 0) return undefined;
  return { sourcePort, destinationPort, data: bytes.subarray(payload + headerBytes, payload + length) };
}

/** Sends a datagram to the guest; one that is too long for the link is dropped. */
export function sendDatagram(sink: FrameSink, source: number, sourcePort: number, destinationPort: number, data: Buffer, destination: number = link.guest): void {
  if (data.length > maxDatagramBytes) return;
  const length = headerBytes + data.length;
  const at = beginIpv4(sink, protocols.udp, source, destination, length);
  const bytes = sink.target;
  writeUint16(bytes, at, sourcePort);
  writeUint16(bytes, at + 2, destinationPort);
  writeUint16(bytes, at + 4, length);
  writeUint16(bytes, at + 6, 0);
  data.copy(bytes, at + headerBytes);
  const checksum = checksumOf(addBytes(bytes, at, at + length, pseudoHeader(source, destination, protocols.udp, length)));
  writeUint16(bytes, at + 6, checksum === 0 ? 0xffff : checksum);
}
