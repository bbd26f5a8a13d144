/** IPv4 addresses and networks as numbers. */

export interface Net {
  /** As it was written. */
  text: string;
  first: number;
  /** 0 to 32. */
  prefix: number;
}

/** Undefined for what is no address in four decimal numbers without leading zeros: other spellings mean other things to other programs. */
export function parseAddress(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)) return undefined;
  return parts.reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** `10.1.0.0/16`; an address alone is a network of one. Undefined for anything else, also where bits behind the prefix are set. */
export function parseNet(text: string): Net | undefined {
  const [address, bits = "32", more] = text.split("/");
  const first = parseAddress(address!);
  if (first === undefined || more !== undefined || !/^(0|[1-9][0-9]?)$/.test(bits) || Number(bits) > 32) return undefined;
  const prefix = Number(bits);
  return first % 2 ** (32 - prefix) === 0 ? { text, first, prefix } : undefined;
}

export function contains({ first, prefix }: Net, address: number): boolean {
  return address >= first && address < first + 2 ** (32 - prefix);
}

/** Whether all of `inner` is in `outer`. */
export function isWithin(inner: Net, outer: Net): boolean {
  return inner.prefix >= outer.prefix && contains(outer, inner.first);
}
