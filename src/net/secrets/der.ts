/** Just enough DER (X.690) to write a certificate. */

export function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  const head = length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >>> 8, length & 255];
  return Buffer.concat([Buffer.from(head), content]);
}

export const sequence = (...contents: readonly Buffer[]): Buffer => der(0x30, ...contents);
export const set = (...contents: readonly Buffer[]): Buffer => der(0x31, ...contents);
export const octets = (content: Buffer): Buffer => der(0x04, content);
export const bits = (content: Buffer, unused = 0): Buffer => der(0x03, Buffer.from([unused]), content);
export const utf8 = (text: string): Buffer => der(0x0c, Buffer.from(text, "utf8"));
export const truth = Buffer.from([0x01, 0x01, 0xff]);

/** A number that is not negative, from its big-endian bytes. */
export function integer(bytes: Buffer): Buffer {
  let from = 0;
  while (from < bytes.length - 1 && bytes[from] === 0) from++;
  const trimmed = bytes.subarray(from);
  return der(0x02, trimmed[0]! >= 0x80 ? Buffer.concat([Buffer.from([0]), trimmed]) : trimmed);
}

/** `1.2.840.10045.4.3.2` */
export function objectId(text: string): Buffer {
  const [first, second, ...rest] = text.split(".").map(Number);
  const bytes = [first! * 40 + second!];
  for (const part of rest) {
    const groups = [part & 0x7f];
    for (let left = part >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return der(0x06, Buffer.from(bytes));
}

/** GeneralizedTime, or UTCTime before 2050 as RFC 5280, 4.1.2.5 wants it. */
export function time(date: Date): Buffer {
  const digits = `${date.toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`;
  return date.getUTCFullYear() < 2050 ? der(0x17, Buffer.from(digits.slice(2))) : der(0x18, Buffer.from(digits));
}
