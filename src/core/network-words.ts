/** What the words that ask for a network mean. */
import { resolve } from "node:path";
import { PyroError, toPyroError } from "../base/error.js";
import { settings } from "../base/settings.js";
import type { Network, NetworkRequest, PolicyRequest, PublishedPort, SecretSource } from "./network.js";
import { makeHook, parseAddress, parseHostPattern, rulesOf, type NetworkPolicy } from "./policy/index.js";

const maxPublished = 64;
const maxSecrets = 64;
const maxSecretBytes = 16 << 10;

/** Throws INVALID_ARGUMENT. */
export function checkedNetwork(request: NetworkRequest): Network {
  const { publish = [], secrets = [] } = request;
  if (request.network === false) throw new PyroError("INVALID_ARGUMENT", "network is false, and something is asked of the network.", { hint: "Leave network out, or all else that is about the network." });
  const policy = policyOf(request, publish.length > 0);
  if (publish.length > maxPublished) throw new PyroError("INVALID_ARGUMENT", `${publish.length} ports are to be published; at most ${maxPublished} can be.`);
  if (secrets.length > maxSecrets) throw new PyroError("INVALID_ARGUMENT", `There are ${secrets.length} secrets; at most ${maxSecrets} are possible.`);
  return { policy, publish: publish.map(parsePublish), secrets: checkSecrets(secrets.map(parseSecret), policy) };
}

/**
 * With hosts that are allowed, nothing but them and the networks that are allowed besides; else the public internet, if that was asked for by `network`; else the
 * allowed networks alone. Throws INVALID_ARGUMENT, also where nothing is left that could be denied. `closedWill`: nothing at all is as good.
 */
export function policyOf({ network, allowHosts = [], denyHosts = [], allowNets = [] }: PolicyRequest, closedWill = false): NetworkPolicy {
  const policy: NetworkPolicy = { mode: network === true && allowHosts.length === 0 ? "public" : "allow_list", allowHosts, denyHosts, allowNets };
  rulesOf(policy);
  if (policy.mode === "allow_list" && allowHosts.length === 0 && allowNets.length === 0 && !closedWill) {
    throw new PyroError("INVALID_ARGUMENT", "Nothing of the network is allowed.", { hint: "Give network (--network) for the public internet, or allow_hosts (--allow-host) for some of it." });
  }
  return policy;
}

/** `[HOST_IP:]HOST_PORT:GUEST_PORT[/udp]` */
function parsePublish(word: string): PublishedPort {
  const [, hostIp = "127.0.0.1", host, guest, protocol = "tcp"] = /^(?:([0-9.]{7,15}):)?([0-9]{1,5}):([0-9]{1,5})(?:\/(tcp|udp))?$/.exec(String(word)) ?? [];
  const [hostPort, guestPort] = [Number(host), Number(guest)];
  if (host === undefined || parseAddress(hostIp) === undefined || hostPort > 65_535 || guestPort < 1 || guestPort > 65_535) {
    throw new PyroError("INVALID_ARGUMENT", `publish has ${JSON.stringify(String(word).slice(0, 100))}; each is [HOST_IP:]HOST_PORT:GUEST_PORT, with /udp behind it if it is one of UDP.`, { hint: "8080:80 publishes the guest's port 80 as 127.0.0.1:8080; 0:80 takes a port that is free." });
  }
  return { protocol: protocol as "tcp" | "udp", hostIp, hostPort, guestPort };
}

/** `NAME@HOST[=FILE]` */
function parseSecret(word: string): SecretSource {
  const [, name, hostText, file] = /^([A-Za-z_][A-Za-z0-9_]{0,99})@([^=]{1,260})(?:=(.{1,4000}))?$/.exec(String(word)) ?? [];
  const host = hostText === undefined ? undefined : parseHostPattern(hostText);
  if (name === undefined || host === undefined || host.below || host.port !== undefined || host.address !== undefined) {
    // Not what was given: somebody may have put the value there.
    throw new PyroError("INVALID_ARGUMENT", "A secret is NAME@HOST, the value being that of the variable NAME, or NAME@HOST=FILE; HOST is one name.", { hint: "API_TOKEN@api.example.org" });
  }
  return { name, host: host.name, ...(file !== undefined && { file: resolve(file) }) };
}

function checkSecrets(secrets: readonly SecretSource[], policy: NetworkPolicy): readonly SecretSource[] {
  const hook = makeHook({ mode: policy.mode, allow_hosts: policy.allowHosts, deny_hosts: policy.denyHosts, allow_nets: policy.allowNets });
  for (const { name, host, file } of secrets) {
    if (!hook.name({ name: host, type: "A" }).allowed) throw new PyroError("INVALID_ARGUMENT", `The secret ${name} is for ${host}, which the guest may not reach.`, { hint: `Allow it as well: --allow-host ${host} (allow_hosts), or --network (network).` });
    if (secrets.some((each) => each.name === name && each.file !== file)) throw new PyroError("INVALID_ARGUMENT", `The secret ${name} has two values.`, { hint: "Give it another name for the second one." });
    if (secrets.filter((each) => each.name === name && each.host === host).length > 1) throw new PyroError("INVALID_ARGUMENT", `The secret ${name} is for ${host} twice.`);
  }
  return secrets;
}

/** The values of secrets as they are now. Throws INVALID_ARGUMENT, NOT_FOUND, DENIED; no message has a value in it. */
export async function readSecrets(sources: readonly SecretSource[]): Promise<(SecretSource & { value: string })[]> {
  return Promise.all(sources.map(async (source) => {
    const value = source.file === undefined ? settings.secret(source.name) : await readSecretFile(source.name, source.file);
    if (value === undefined) throw new PyroError("NOT_FOUND", `The secret ${source.name} has no value: there is no variable of that name.`, { hint: `export ${source.name}=…, or give --secret ${source.name}@${source.host}=FILE.` });
    // It becomes part of a request's headers.
    if (value.length > maxSecretBytes || !/^[\x20-\x7e]+$/.test(value)) throw new PyroError("INVALID_ARGUMENT", `The secret ${source.name} can't be used: a value has 1 to ${maxSecretBytes} printable ASCII characters.`);
    return { ...source, value };
  }));
}

async function readSecretFile(name: string, file: string): Promise<string> {
  const { readRegular } = await import("../base/regular-file.js");
  try {
    return (await readRegular(file, maxSecretBytes + 2)).toString("latin1").replace(/\r?\n$/, "");
  } catch (error) {
    const { code, message, hint } = toPyroError(error);
    throw new PyroError(code === "INTERNAL" ? "NOT_FOUND" : code, `The secret ${name} can't be read: ${message}`, { cause: error, ...(hint !== undefined && { hint }) });
  }
}
