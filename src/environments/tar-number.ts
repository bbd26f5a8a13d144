/**
 * The numbers and small records of a tar header: octal and base-256 fields (GNU tar manual, "Basic Tar Format" and
 * "Extensions"), decimal PAX values (POSIX.1-2017, pax, "pax Extended Header").
 */

/** A header field as a number: octal text, or base-256 when its first bit is set. Undefined when it is neither, or not a safe integer. */
export function parseField(block: Uint8Array, offset: number, length: number): number | undefined {
  const first = block[offset]!;
  if (first & 0x80) return parseBase256(block, offset, length);
  let at = offset;
  const end = offset + length;
  while (at < end && block[at] === 0x20) at++;
  let value = 0;
  for (; at < end; at++) {
    const byte = block[at]!;
    if (byte === 0 || byte === 0x20) break;
    if (byte < 0x30 || byte > 0x37) return undefined;
    value = value * 8 + (byte - 0x30);
  }
  for (; at < end; at++) if (block[at] !== 0 && block[at] !== 0x20) return undefined;
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Two's complement, big endian, with the first bit as the mark of the format. */
function parseBase256(block: Uint8Array, offset: number, length: number): number | undefined {
  const negative = (block[offset]! & 0x40) !== 0;
  let value = negative ? (block[offset]! | 0x80) - 0x100 : block[offset]! & 0x7f;
  for (let at = offset + 1; at < offset + length; at++) {
    value = value * 256 + block[at]!;
    if (!Number.isSafeInteger(value)) return undefined;
  }
  return value;
}

/** A non-negative decimal number of at most 16 digits; undefined for all else. */
export function parseDecimal(text: string): number | undefined {
  if (!/^[0-9]{1,16}$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** A PAX time: seconds since 1970 with an optional sign and fraction. Nanoseconds count forwards, so -1.5 is { -2, 500000000 }. */
export function parseTime(text: string): { seconds: number; nanoseconds: number } | undefined {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]{0,32}))?$/.exec(text);
  if (match === null) return undefined;
  const whole = Number(match[2]);
  const nanoseconds = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] === "") return { seconds: whole, nanoseconds };
  if (nanoseconds === 0) return { seconds: whole === 0 ? 0 : -whole, nanoseconds: 0 };
  return { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}
