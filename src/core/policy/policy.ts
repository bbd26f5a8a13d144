/** What a guest may reach, in words, and whether these make sense. */
import { PyroError } from "../../base/error.js";
import { parseHostPattern, type HostPattern } from "./host-pattern.js";
import { parseNet, type Net } from "./ipv4.js";

export interface NetworkPolicy {
  /** `public`: the public internet, without what is denied. `allow_list`: what is allowed, and nothing else. */
  mode: "public" | "allow_list";
  /** `example.org`, `*.example.org:443`, `10.1.2.3:8080`. */
  allowHosts: readonly string[];
  denyHosts: readonly string[];
  /** `10.1.0.0/16`. */
  allowNets: readonly string[];
}

/** `totalBytes`: of all words together, as a VM's record has them. */
export const policyLimits = { entries: 1024, entryChars: 300, totalBytes: 65_536 } as const;

/** The policy with its words understood. */
export interface Rules {
  mode: NetworkPolicy["mode"];
  allow: readonly HostPattern[];
  deny: readonly HostPattern[];
  nets: readonly Net[];
}

/** Throws INVALID_ARGUMENT that names the word, and what is allowed. */
export function rulesOf({ mode, allowHosts, denyHosts, allowNets }: NetworkPolicy): Rules {
  if (mode !== "public" && mode !== "allow_list") throw new PyroError("INVALID_ARGUMENT", "A policy's mode is public or allow_list.");
  const totalBytes = [allowHosts, denyHosts, allowNets].flat().reduce((sum, word) => sum + Buffer.byteLength(String(word)), 0);
  if (totalBytes > policyLimits.totalBytes) throw new PyroError("INVALID_ARGUMENT", `The policy's hosts and networks are ${totalBytes} bytes long together; at most ${policyLimits.totalBytes} are possible.`, { hint: "*.example.org allows all names below example.org." });
  const hosts = (field: string, words: readonly string[]) =>
    checkWords(field, words).map((word) => parseHostPattern(word) ?? wrong(field, word, "a name (example.org), all names below one (*.example.org) or an IPv4 address, and if wanted a port behind it (:443)", "Leave out what else a URL has: example.org:443."));
  return {
    mode,
    allow: hosts("allow_hosts", allowHosts),
    deny: hosts("deny_hosts", denyHosts),
    nets: checkWords("allow_nets", allowNets).map((word) => parseNet(word) ?? wrong("allow_nets", word, "an IPv4 network (10.1.0.0/16) with nothing set behind its prefix, or an address", "10.1.0.0/16 is all of 10.1.x.x; 10.1.2.3 is that address alone.")),
  };
}

/** A policy as the gateway is told it, in the spelling of JSON. Throws INVALID_ARGUMENT. */
export function readPolicy(value: unknown): NetworkPolicy {
  const of = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  return {
    mode: of["mode"] as NetworkPolicy["mode"],
    allowHosts: (of["allow_hosts"] ?? []) as readonly string[],
    denyHosts: (of["deny_hosts"] ?? []) as readonly string[],
    allowNets: (of["allow_nets"] ?? []) as readonly string[],
  };
}

function checkWords(field: string, words: readonly string[]): readonly string[] {
  if (!Array.isArray(words) || words.some((word) => typeof word !== "string")) throw new PyroError("INVALID_ARGUMENT", `${field} is a list of texts.`);
  if (words.length > policyLimits.entries) throw new PyroError("INVALID_ARGUMENT", `${field} has ${words.length} entries; at most ${policyLimits.entries} are possible.`);
  return words;
}

function wrong(field: string, word: string, allowed: string, hint: string): never {
  throw new PyroError("INVALID_ARGUMENT", `${field} has ${JSON.stringify(word.slice(0, policyLimits.entryChars))}; each is ${allowed}.`, { hint });
}
