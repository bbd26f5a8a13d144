/** The checksum of the internet protocols (RFC 1071). It is most of what the gateway's processor does, so it is taken in words of the machine. */
import { endianness } from "node:os";

/** Below this, finding the words costs more than it saves. */
const leastWordsBytes = 64;
const isLittle = endianness() === "LE";

/** Adds the bytes from `start` to `end` to `sum`, as big-endian 16-bit numbers; what has overflowed 16 bits may be added again already. */
export function addBytes(bytes: Buffer, start: number, end: number, sum = 0): number {
  if (isLittle && end - start >= leastWordsBytes) return sum + addWords(bytes, start, end);
  let at = start;
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
  return ~fold(sum) & 0xffff;
}

/** The sum is the same in either order of bytes, but for a swap at the end (RFC 1071, 2 B); bytes that begin at an odd address come swapped already. */
function addWords(bytes: Buffer, start: number, end: number): number {
  const words = wordsOf(bytes.buffer);
  const isOdd = ((bytes.byteOffset + start) & 1) === 1;
  let index = (bytes.byteOffset + start + 1) >> 1;
  const stop = (bytes.byteOffset + end) >> 1;
  let sum = 0;
  // Eight words a turn: the loop's own cost is then small.
  for (const last = stop - 7; index < last; index += 8) {
    sum += words[index]! + words[index + 1]! + words[index + 2]! + words[index + 3]! + words[index + 4]! + words[index + 5]! + words[index + 6]! + words[index + 7]!;
  }
  for (; index < stop; index++) sum += words[index]!;
  if (((bytes.byteOffset + end) & 1) === 1) sum += bytes[end - 1]!;
  const folded = fold(sum);
  return isOdd ? folded + (bytes[start]! << 8) : ((folded & 0xff) << 8) | (folded >>> 8);
}

function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

// What is read from the cable and what is written to it: making a view of either for each packet would cost as much as the packet.
let recent: { buffer: ArrayBufferLike; words: Uint16Array } = { buffer: new ArrayBuffer(0), words: new Uint16Array(0) };
let before = recent;

function wordsOf(buffer: ArrayBufferLike): Uint16Array {
  if (recent.buffer === buffer) return recent.words;
  const other = before;
  before = recent;
  recent = other.buffer === buffer ? other : { buffer, words: new Uint16Array(buffer, 0, buffer.byteLength >> 1) };
  return recent.words;
}
