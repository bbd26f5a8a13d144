/** ARP (RFC 826): the guest asks who has the gateway's address, and nobody else's is answered for. */
import { link } from "../addresses.js";
import type { FrameSink } from "./link.js";

export const etherTypeArp = 0x0806;
const arpBytes = 28;
/** Ethernet, IPv4, 6 and 4 bytes of address. */
const kinds = 0x00010800;

export function answerArp(sink: FrameSink, bytes: Buffer, start: number, end: number): void {
  if (end - start < arpBytes || bytes.readUInt32BE(start) !== kinds || bytes.readUInt16BE(start + 4) !== 0x0604) return;
  const isRequest = bytes.readUInt16BE(start + 6) === 1;
  if (!isRequest || bytes.readUInt32BE(start + 24) !== link.gateway) return;
  const at = sink.begin(etherTypeArp, arpBytes);
  const answer = sink.target;
  answer.writeUInt32BE(kinds, at);
  answer.writeUInt16BE(0x0604, at + 4);
  answer.writeUInt16BE(2, at + 6);
  answer.set(link.gatewayMac, at + 8);
  answer.writeUInt32BE(link.gateway, at + 14);
  bytes.copy(answer, at + 18, start + 8, start + 18); // who asked: hardware and protocol address
}
