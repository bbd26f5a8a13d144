/** What is asked of a VM's network, as every face has it, and what is meant by it. */
import { PyroError } from "../base/error.js";
import type { NetworkPolicy } from "./policy/index.js";

/** What a guest may reach. */
export interface PolicyRequest {
  /** The public internet, and nothing of this host or of private networks. With `allowHosts` nothing else than these. */
  network?: boolean;
  /** Only these: `example.org`, `*.example.org:443`, `10.1.2.3:8080`. At most 1,024. */
  allowHosts?: readonly string[];
  /** Not these, whatever else is allowed. */
  denyHosts?: readonly string[];
  /** These as well: `10.1.0.0/16`. A private network is opened by naming it or a part of it. */
  allowNets?: readonly string[];
}

/** A VM's network. All of it is off, and the guest has none, unless something of this is asked for. */
export interface NetworkRequest extends PolicyRequest {
  /** The guest's ports on this host: `8080:80`, `127.0.0.1:0:53/udp`; port 0 is one that is free. At most 64. */
  publish?: readonly string[];
  /** What the guest may use and never sees: `NAME@HOST`, the value being that of our variable NAME, or `NAME@HOST=FILE`. The guest's NAME has a placeholder. */
  secrets?: readonly string[];
}

/** A guest's port on this host. */
export interface PublishedPort {
  protocol: "tcp" | "udp";
  hostIp: string;
  /** 0: one that is free. */
  hostPort: number;
  guestPort: number;
}

/** Where a secret is from and who gets it. The value itself is never kept. */
export interface SecretSource {
  name: string;
  host: string;
  /** Absolute; the variable `name` when left out. */
  file?: string;
}

/** What a VM's network is to be; checked, and what its record keeps. */
export interface Network {
  policy: NetworkPolicy;
  publish: readonly PublishedPort[];
  secrets: readonly SecretSource[];
}

/** Undefined where nothing is asked for. Throws INVALID_ARGUMENT. */
export async function networkOf(request: NetworkRequest): Promise<Network | undefined> {
  const words = [request.allowHosts, request.denyHosts, request.allowNets, request.publish, request.secrets];
  if (!request.network && words.every((each) => each === undefined || each.length === 0)) return undefined;
  return (await import("./network-words.js")).checkedNetwork(request); // most VMs have none, and need nothing of it
}

/** On the host nothing could hold more than "network or none". Throws INVALID_ARGUMENT. */
export function checkHostCompat({ allowHostCompat }: { allowHostCompat?: boolean }, network: Network | undefined): void {
  if (!allowHostCompat || network === undefined) return;
  const { policy, publish, secrets } = network;
  if (policy.mode === "public" && [policy.denyHosts, publish, secrets].every((each) => each.length === 0)) return;
  throw new PyroError("INVALID_ARGUMENT", "allow_host_compat can't go with a policy, published ports or secrets: on the host there is no gateway for them.", { hint: "Leave out allow_host_compat (--allow-host-compat), or ask for network (--network) alone." });
}
