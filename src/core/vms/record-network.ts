/** The network in a VM's record, read with suspicion. Whether its words make sense is the gateway's to say. */
import type { Network, PublishedPort, SecretSource } from "../network.js";

const maxEntries = 1024;

export function parseNetwork(value: unknown): Network | undefined {
  const { policy, publish, secrets } = objectOf(value);
  const { mode, allow_hosts: allowHosts, deny_hosts: denyHosts, allow_nets: allowNets } = objectOf(policy);
  if ((mode !== "public" && mode !== "allow_list") || !isTexts(allowHosts) || !isTexts(denyHosts) || !isTexts(allowNets)) return undefined;
  const ports = parsePorts(publish);
  const sources = listOf(secrets, parseSource);
  return ports === undefined || sources === undefined ? undefined : { policy: { mode, allowHosts, denyHosts, allowNets }, publish: ports, secrets: sources };
}

export function parsePorts(value: unknown): PublishedPort[] | undefined {
  return listOf(value, parsePort);
}

export function isVariables(value: unknown): value is string[] {
  return isTexts(value) && value.every((each) => /^[A-Za-z_][A-Za-z0-9_]*=/.test(each));
}

function parsePort(value: unknown): PublishedPort | undefined {
  const { protocol, host_ip: hostIp, host_port: hostPort, guest_port: guestPort } = objectOf(value);
  const isPort = (port: unknown): port is number => Number.isInteger(port) && (port as number) >= 0 && (port as number) <= 65_535;
  if ((protocol !== "tcp" && protocol !== "udp") || typeof hostIp !== "string" || !isPort(hostPort) || !isPort(guestPort)) return undefined;
  return { protocol, hostIp, hostPort, guestPort };
}

function parseSource(value: unknown): SecretSource | undefined {
  const { name, host, file } = objectOf(value);
  if (typeof name !== "string" || typeof host !== "string" || (file !== undefined && typeof file !== "string")) return undefined;
  return { name, host, ...(file !== undefined && { file }) };
}

function listOf<T>(value: unknown, parse: (each: unknown) => T | undefined): T[] | undefined {
  if (!Array.isArray(value) || value.length > maxEntries) return undefined;
  const parsed = value.map(parse);
  return parsed.every((each) => each !== undefined) ? parsed : undefined;
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.length <= maxEntries && value.every((each) => typeof each === "string");
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
