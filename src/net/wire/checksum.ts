/** The checksum of the internet protocols (RFC 1071). */

/** Adds the bytes from `start` to `end` to `sum`, as 16-bit numbers. The sum of a whole frame stays far below 2^53. */
export function addBytes(bytes: Buffer, start: number, end: number, sum = 0): number {
  let at = start;
  // Four words a turn: the loop's own cost is then a fifth instead of a half.
  for (const last = end - 7; at < last; at += 8) {
    sum += ((bytes[at]! << 8) | bytes[at + 1]!) + ((bytes[at + 2]! << 8) | bytes[at + 3]!) + ((bytes[at + 4]! << 8) | bytes[at + 5]!) + ((bytes[at + 6]! << 8) | bytes[at + 7]!);
  }
  for (; at + 1 < end; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  if (at < end) sum += bytes[at]! << 8;
  return sum;
}

/** What stands in front of TCP's and UDP's checksum (RFC 9293, 3.1): addresses, protocol and length. */
export function pseudoHeader(source: number, destination: number, protocol: number, lengthBytes: number): number {
  return (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + protocol + lengthBytes;
}

/** The checksum of a sum: of bytes that hold their own checksum it is 0. */
export function checksumOf(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
