/** What `--allow-host` and `--deny-host` name: a name or all names below one, or an address, and perhaps a port. */
import { domainToASCII } from "node:url";
import { parseAddress } from "./ipv4.js";

export interface HostPattern {
  /** As it was written, but in lower case and ASCII. */
  text: string;
  /** `example.org`; with `below`, what names end with, and empty for all names. */
  name: string;
  /** Names below it, at any depth, and not the name itself. */
  below: boolean;
  /** Undefined for all ports. */
  port: number | undefined;
  /** Of a pattern that is an address. */
  address: number | undefined;
}

/** `example.org`, `*.example.org:443`, `*`, `10.1.2.3:8080`. Undefined for anything else. */
export function parseHostPattern(given: string): HostPattern | undefined {
  const [, host = "", portText] = /^([^:]+)(?::([0-9]{1,5}))?$/.exec(given.trim()) ?? [];
  const port = portText === undefined ? undefined : Number(portText);
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined;
  const suffix = port === undefined ? "" : `:${port}`;
  const address = parseAddress(host);
  if (address !== undefined) return { text: `${host}${suffix}`, name: host, below: false, port, address };
  if (host === "*") return { text: `*${suffix}`, name: "", below: true, port, address: undefined };
  const below = host.startsWith("*.");
  const name = normalName(below ? host.slice(2) : host);
  // What ends in a number is an address to some programs (WHATWG URL, "ends in a number"), and no name on the internet is like that.
  if (name === undefined || /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/.test(name)) return undefined;
  return { text: `${below ? "*." : ""}${name}${suffix}`, name, below, port, address: undefined };
}

/** Lower case, in ASCII, without the last dot; undefined for what is no name of a host. */
export function normalName(given: string): string | undefined {
  const undotted = given.endsWith(".") ? given.slice(0, -1) : given;
  // Names of services have underscores, which URLs' rules for names know nothing of.
  const name = /^[\x21-\x7e]*$/.test(undotted) ? undotted.toLowerCase() : domainToASCII(undotted);
  const isName = name.length <= 253 && name.split(".").every((label) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  return isName ? name : undefined;
}

/** Whether it is about this name, whatever the port. `name` is normal. */
export function isAbout({ name: own, below, address }: HostPattern, name: string): boolean {
  if (address !== undefined) return false;
  return below ? own === "" || name.endsWith(`.${own}`) : name === own;
}

export function hasPort({ port: own }: HostPattern, port: number): boolean {
  return own === undefined || own === port;
}
