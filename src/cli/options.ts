import { type Command, Option, InvalidArgumentError } from "commander";
import { limits, type NetworkRequest } from "../core/index.js";

/** A flag that takes a whole number, with its range and default in the help. The range itself is checked in core. */
export function limitOption(flags: string, description: string, name: "vcpuCount" | "memMib" | "diskMib" | "timeoutSeconds" | "ttlSeconds"): Option {
  const { min, max, default: fallback } = limits[name];
  return new Option(flags, `${description} (${min} to ${max}, default ${fallback})`).argParser((text: string) => {
    if (!/^-?[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`);
    return Number(text);
  });
}

export function wholeNumber(text: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new InvalidArgumentError("It is a whole number.");
  return Number(text);
}

/** The flags that say in what surroundings a command runs in the guest. */
export interface SurroundingFlags {
  env?: Record<string, string>;
  user?: string;
  workdir?: string;
}

export function surroundingOptions(command: Command): Command {
  return command
    .addOption(new Option("--env <NAME=VALUE>", "set a variable for the command; may be given again").argParser(addVariable))
    .option("--user <user>", "name, uid, name:group or uid:gid (default root)")
    .option("--workdir <path>", "directory in the guest (default the user's home)");
}

export function surroundingsOf({ env, user, workdir }: SurroundingFlags): { env?: Record<string, string>; user?: string; cwd?: string } {
  return { ...(env !== undefined && { env }), ...(user !== undefined && { user }), ...(workdir !== undefined && { cwd: workdir }) };
}

function addVariable(text: string, before: Record<string, string> = {}): Record<string, string> {
  const equals = text.indexOf("=");
  if (equals < 1) throw new InvalidArgumentError("It is NAME=VALUE.");
  return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
}

/** The flags that say what a guest may reach; `PolicyFlags` those that can be changed while it runs. */
export interface PolicyFlags {
  network?: boolean;
  allowHost?: string[];
  denyHost?: string[];
  allowNet?: string[];
}

export interface NetworkFlags extends PolicyFlags {
  publish?: string[];
  secret?: string[];
}

export function policyOptions(command: Command): Command {
  return command
    .option("--network", "let the guest reach the public internet; nothing of this host or of private networks")
    .addOption(repeated("--allow-host <host[:port]>", "only this one, *.NAME for all below NAME; implies a network; may be given again"))
    .addOption(repeated("--deny-host <host[:port]>", "not this one, whatever else is allowed; may be given again"))
    .addOption(repeated("--allow-net <net>", "this IPv4 network as well, also a private one (10.1.0.0/16); implies a network; may be given again"));
}

export function networkOptions(command: Command): Command {
  return policyOptions(command)
    .addOption(repeated("--publish <[ip:]port:port[/udp]>", "the guest's port on this host, 127.0.0.1 if no other address; 0 takes one that is free; may be given again"))
    .addOption(repeated("--secret <name@host[=file]>", "the guest's variable NAME gets a placeholder, and requests to HOST the value, from our variable or the file; may be given again"));
}

export function policyOf({ network, allowHost, denyHost, allowNet }: PolicyFlags): NetworkRequest {
  return { ...(network !== undefined && { network }), ...(allowHost && { allowHosts: allowHost }), ...(denyHost && { denyHosts: denyHost }), ...(allowNet && { allowNets: allowNet }) };
}

/** The flags about the network as what they ask for, and all others. */
export function splitNetwork<Flags extends NetworkFlags>({ network, allowHost, denyHost, allowNet, publish, secret, ...rest }: Flags): { rest: Omit<Flags, keyof NetworkFlags>; request: NetworkRequest } {
  const policy: PolicyFlags = { ...(network !== undefined && { network }), ...(allowHost && { allowHost }), ...(denyHost && { denyHost }), ...(allowNet && { allowNet }) };
  return { rest, request: { ...policyOf(policy), ...(publish && { publish }), ...(secret && { secrets: secret }) } };
}

function repeated(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text: string, before: string[] = []) => [...before, text]);
}
