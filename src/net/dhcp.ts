/** DHCP (RFC 2131), for images that bring a client of their own: the one address there is, for a day. */
import { link } from "./addresses.js";
import type { FrameSink } from "./wire/link.js";
import { sendDatagram, type Datagram } from "./wire/udp.js";

export const dhcpServerPort = 67;
const clientPort = 68;
const cookie = 0x63825363;
const fixedBytes = 236;
const leaseSeconds = 86_400;
const MessageType = { discover: 1, offer: 2, request: 3, ack: 5, nak: 6, inform: 8 } as const;
const broadcast = 0xffffffff;

export function answerDhcp(sink: FrameSink, { data, sourcePort }: Datagram): void {
  if (sourcePort !== clientPort || data.length < fixedBytes + 4 || data[0] !== 1 || data.readUInt32BE(fixedBytes) !== cookie) return;
  const options = parseOptions(data);
  const asked = options.get(53)?.[0];
  const wanted = options.get(50)?.length === 4 ? options.get(50)!.readUInt32BE(0) : data.readUInt32BE(12);
  if (asked === MessageType.discover) return answer(sink, data, MessageType.offer);
  if (asked === MessageType.inform) return answer(sink, data, MessageType.ack);
  if (asked === MessageType.request) answer(sink, data, wanted === link.guest ? MessageType.ack : MessageType.nak);
}

function answer(sink: FrameSink, request: Buffer, type: number): void {
  const isRefusal = type === MessageType.nak;
  const fixed = Buffer.alloc(fixedBytes + 4);
  fixed.set([2, 1, 6, 0]);
  request.copy(fixed, 4, 4, 8); // the transaction
  request.copy(fixed, 10, 10, 12); // whether it wants broadcasts
  if (!isRefusal) fixed.writeUInt32BE(link.guest, 16);
  fixed.writeUInt32BE(isRefusal ? 0 : link.gateway, 20);
  fixed.set(link.guestMac, 28);
  fixed.writeUInt32BE(cookie, fixedBytes);
  const mask = (0xffffffff << (32 - link.prefixLength)) >>> 0;
  const options = Buffer.concat([
    option(53, type, 1),
    option(54, link.gateway),
    ...(isRefusal ? [] : [option(51, leaseSeconds), option(1, mask), option(3, link.gateway), option(6, link.gateway), option(26, link.mtuBytes, 2)]),
    Buffer.from([255]),
  ]);
  const message = Buffer.concat([fixed, options, Buffer.alloc(Math.max(0, 300 - fixed.length - options.length))]); // BOOTP's least (RFC 1542, 2.1)
  sendDatagram(sink, link.gateway, dhcpServerPort, clientPort, message, broadcast);
}

function option(code: number, value: number, bytes = 4): Buffer {
  const encoded = Buffer.alloc(2 + bytes);
  encoded.set([code, bytes]);
  encoded.writeUIntBE(value, 2, bytes);
  return encoded;
}

function parseOptions(data: Buffer): Map<number, Buffer> {
  const options = new Map<number, Buffer>();
  for (let at = fixedBytes + 4; at < data.length; ) {
    const code = data[at]!;
    if (code === 255) break;
    if (code === 0) {
      at++;
      continue;
    }
    const length = data[at + 1];
    if (length === undefined || at + 2 + length > data.length) break;
    options.set(code, data.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return options;
}
