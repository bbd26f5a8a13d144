/**
 * Addresses that are not the public internet. From IANA's registry of special-purpose addresses (RFC 6890) what is not globally reachable, multicast
 * (RFC 5771), and what clouds answer their machines' questions about themselves at where that is outside of the registry's ranges.
 */
import { contains, parseNet, type Net } from "./ipv4.js";

export interface SpecialRange extends Net {
  /** In rules and reasons: "10.0.0.5 is a private address". */
  name: string;
}

/** Smaller ones first where one is inside another. */
export const specialRanges: readonly SpecialRange[] = (
  [
    ["168.63.129.16/32", "metadata"], // Azure; that of all others is link-local, shared (100.100.100.200) or reserved (192.0.0.192)
    ["0.0.0.0/8", "this-host"], // RFC 791; to Linux 0.0.0.0 is the host itself
    ["10.0.0.0/8", "private"], // RFC 1918
    ["100.64.0.0/10", "shared"], // RFC 6598, behind carriers' address translation
    ["127.0.0.0/8", "loopback"], // RFC 1122
    ["169.254.0.0/16", "link-local"], // RFC 3927, with clouds' 169.254.169.254
    ["172.16.0.0/12", "private"], // RFC 1918
    ["192.0.0.0/24", "reserved"], // RFC 6890, IETF protocol assignments
    ["192.0.2.0/24", "documentation"], // RFC 5737
    ["192.88.99.0/24", "reserved"], // RFC 7526, once relays of 6to4
    ["192.168.0.0/16", "private"], // RFC 1918
    ["198.18.0.0/15", "benchmarking"], // RFC 2544
    ["198.51.100.0/24", "documentation"], // RFC 5737
    ["203.0.113.0/24", "documentation"], // RFC 5737
    ["224.0.0.0/4", "multicast"], // RFC 5771
    ["255.255.255.255/32", "broadcast"], // RFC 919
    ["240.0.0.0/4", "reserved"], // RFC 1112
  ] as const
).map(([text, name]) => ({ ...parseNet(text)!, name }));

/** Undefined for an address of the public internet. */
export function specialRangeOf(address: number): SpecialRange | undefined {
  return specialRanges.find((range) => contains(range, address));
}
