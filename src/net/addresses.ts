/** IPv4 addresses: as unsigned numbers inside, as dotted text towards people and the policy. */
import { networkInterfaces } from "node:os";

/** The wire between guest and gateway: a network of two, in carrier-grade NAT space (RFC 6598), which is refused anyway. */
export const link = {
  guest: 0x64600002, // 100.96.0.2
  gateway: 0x64600001, // 100.96.0.1, also the resolver
  prefixLength: 24,
  mtuBytes: 9000,
  guestMac: Buffer.from("525400707972", "hex"),
  gatewayMac: Buffer.from("525400707901", "hex"),
} as const;

export function showAddress(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** Undefined for what is no dotted IPv4 address of four plain decimal numbers. */
export function parseAddress(text: string): number | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  if (parts === undefined || parts.some((part) => part > 255)) return undefined;
  return ((parts[0]! << 24) | (parts[1]! << 16) | (parts[2]! << 8) | parts[3]!) >>> 0;
}

/** How long a look at the host's addresses holds; asking the kernel costs 50 µs, and a guest can connect thousands of times a second. */
const ownAddressesMs = 500;
let own: { at: number; addresses: Set<string> } | undefined;

/** Whether `address` is one of this host's own. */
export function isOwnAddress(address: string): boolean {
  const now = performance.now();
  if (own === undefined || now - own.at > ownAddressesMs) {
    own = { at: now, addresses: new Set(Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map((one) => one.address))) };
  }
  return own.addresses.has(address);
}
