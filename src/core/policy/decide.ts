/** Decisions: may a guest ask for this name, be given this address, connect there, and say that to a server. Pure. */
import type { Decision, PolicyHook } from "../../net/index.js";
import { hasPort, isAbout, normalName } from "./host-pattern.js";
import { contains, isWithin, parseAddress } from "./ipv4.js";
import type { Rules } from "./policy.js";
import { specialRangeOf } from "./special-ranges.js";

/** TLS inside of UDP: what the guest says to the server can't be read, so it can't be held against the name. */
const quicPort = 443;

export function policyHook(rules: Rules): PolicyHook {
  const denied = (name: string, port?: number) => rules.deny.find((pattern) => isAbout(pattern, name) && (port === undefined ? pattern.port === undefined : hasPort(pattern, port)));
  const deniedAddress = (address: number, port: number) => rules.deny.find((pattern) => pattern.address === address && hasPort(pattern, port));
  const listed = (name: string) => rules.allow.filter((pattern) => isAbout(pattern, name));

  const name: PolicyHook["name"] = ({ name: asked }) => {
    const denial = denied(asked);
    if (denial !== undefined) return refused(`deny-host ${denial.text}`, `${asked} is denied`);
    if (rules.mode === "public") return allowed("public");
    const [pattern] = listed(asked);
    return pattern === undefined ? notListed(asked) : allowed(`allow-host ${pattern.text}`);
  };

  /** Allowed, where the address was named by itself; refused where it would have had to be; undefined for one of the public internet. */
  const byAddress = (text: string, own: boolean, port?: number, standIn = false): Decision | undefined => {
    if (standIn) return undefined; // it is the proxy that knows where the name leads
    const address = parseAddress(text);
    if (address === undefined) return refused("no-address", `${text.slice(0, 40)} is no IPv4 address`);
    const literal = rules.allow.find((pattern) => pattern.address === address && (port === undefined || hasPort(pattern, port)));
    if (literal !== undefined) return allowed(`allow-host ${literal.text}`);
    const special = specialRangeOf(address);
    const isOwn = own || special?.name === "loopback" || special?.name === "this-host"; // all of these are this host, not only the ones that a card has
    // A network that merely reaches over a special range, as 0.0.0.0/0 does, does not name it.
    const net = rules.nets.find((each) => contains(each, address) && (isOwn ? each.prefix === 32 : special === undefined || isWithin(each, special)));
    if (net !== undefined) return allowed(`allow-net ${net.text}`);
    if (own && special?.name !== "loopback") return refused("host-address", `${text} is this host's own address, and only --allow-net ${text} would allow it`);
    if (special !== undefined) return refused(`${special.name} ${special.text}`, `${text} is a ${special.name} address (${special.text}), and no --allow-net names it`);
    return undefined;
  };

  return {
    checksHellos: rules.mode !== "public" || rules.deny.length > 0,

    name,

    address: ({ name: asked, address, own }) => byAddress(address, own) ?? name({ name: asked, type: "A" }),

    connect: ({ protocol, address, port, own, names, standIn }) => {
      const deniedLiteral = deniedAddress(parseAddress(address) ?? -1, port);
      if (deniedLiteral !== undefined) return refused(`deny-host ${deniedLiteral.text}`, `${address}:${port} is denied`);
      const denial = names.length > 0 && names.every((each) => denied(each, port) !== undefined) ? denied(names[0]!, port) : undefined;
      if (denial !== undefined) return refused(`deny-host ${denial.text}`, `${names[0]} is denied`);
      const decision = byAddress(address, own, port, standIn);
      if (decision !== undefined) return decision;
      const unreadable = protocol === "udp" && port === quicPort && (rules.mode === "allow_list" || rules.deny.length > 0);
      if (unreadable) return refused("quic", "QUIC hides the server's name, so that the policy could not be held; TCP is not affected");
      if (rules.mode === "public") return allowed("public");
      const askable = names.filter((each) => denied(each, port) === undefined);
      for (const each of askable) {
        const pattern = listed(each).find((one) => hasPort(one, port));
        if (pattern !== undefined) return allowed(`allow-host ${pattern.text}`);
      }
      const [first] = names;
      if (first === undefined) return refused("unresolved", `no allowed name was resolved to ${address}`);
      const [elsewhere] = listed(first);
      return elsewhere === undefined ? notListed(first) : refused(`allow-host ${elsewhere.text}`, `port ${port} of ${first} is not allowed`);
    },

    helloName: ({ name: given, via, address, port, own, names, standIn }) => {
      const byItself = byAddress(address, own, port, standIn);
      if (given === undefined) return byItself ?? allowed("no-name"); // where it connected was decided by then
      const said = hostOf(given);
      const what = via === "tls" ? "the TLS server name" : "the HTTP host";
      const shown = JSON.stringify(given.slice(0, 100));
      const denial = said === undefined ? undefined : denied(said, port);
      if (denial !== undefined) return refused(`deny-host ${denial.text}`, `${what} ${shown} is denied`);
      // Servers are more lenient about a host than we are, and one of them may take it for a denied one.
      const isOpen = byItself?.allowed ?? rules.mode === "public";
      if (isOpen && said === undefined && rules.deny.some((pattern) => pattern.address === undefined)) return refused("name-unreadable", `${what} ${shown} is no name, and so can't be compared with the denied ones`);
      if (byItself !== undefined) return byItself;
      // All that a lie could reach is open anyway.
      if (rules.mode === "public") return allowed("public");
      if (said === undefined || !names.includes(said)) return refused("name-mismatch", `${what} is ${shown}, and that name was not resolved to ${address}`);
      const pattern = listed(said).find((one) => hasPort(one, port));
      return pattern === undefined ? notListed(said) : allowed(`allow-host ${pattern.text}`);
    },
  };
}

/** HTTP's Host may have a port behind it. */
function hostOf(given: string): string | undefined {
  return normalName(given.replace(/:[0-9]{0,5}$/, ""));
}

function notListed(name: string): Decision {
  return refused("not-allowed", `${name} is not among the allowed hosts`);
}

function allowed(rule: string): Decision {
  return { allowed: true, rule };
}

function refused(rule: string, reason: string): Decision {
  return { allowed: false, rule, reason };
}
