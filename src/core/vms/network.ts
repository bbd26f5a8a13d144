/** What a VM with a record may reach, what it did with that, and another policy for one that runs. */
import { checkSignal, unlessAborted } from "../../base/deadline.js";
import { PyroError } from "../../base/error.js";
import type { OpenGateway } from "../exec.js";
import type { PolicyRequest, PublishedPort } from "../network.js";
import type { NetworkPolicy } from "../policy/index.js";
import { auditRecord, type AuditRecord } from "./audit.js";
import { openGateway } from "./connect.js";
import type { OpenedVm } from "./open.js";
import { writeVmRecord } from "./record.js";
import { knowVm, withVm } from "./store.js";

export interface NetworkCounters {
  connectionsOpen: number;
  connectionsTotal: number;
  refusedTotal: number;
  dnsQueries: number;
  bytesSent: number;
  bytesReceived: number;
}

export interface NetworkInfo {
  vmId: string;
  networkEnabled: boolean;
  /** What the guest may reach: nothing, the public internet, or what is listed. */
  policy: "none" | "public" | "allow_list";
  /** The guest's; of a VM with a network, as all that follows. */
  guestIp?: string;
  gatewayIp?: string;
  dns?: string;
  /** In the guest. */
  interface?: string;
  allowedHosts?: readonly string[];
  deniedHosts?: readonly string[];
  allowedNets?: readonly string[];
  publishedPorts?: readonly PublishedPort[];
  /** Names of secrets and their hosts. */
  secrets?: readonly { name: string; host: string }[];
  /** Of one that runs: whether its gateway does. Without it the guest reaches nothing. */
  gatewayRunning?: boolean;
  /** Since it was started; of one that runs. */
  counters?: NetworkCounters;
  /** The last 32. */
  lastRefusals?: AuditRecord[];
}

/** Throws NOT_FOUND, CANCELLED. */
export async function networkInfoVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<NetworkInfo> {
  checkSignal(options.signal);
  const { record, found } = await knowVm(vmId);
  try {
    const { network, executionMode } = record;
    if (network === undefined) return none(vmId);
    const isGuest = executionMode !== "host_compat";
    return {
      ...describe(vmId, network.policy),
      ...(isGuest && (await addresses())),
      publishedPorts: network.publish,
      secrets: network.secrets.map(({ name, host }) => ({ name, host })),
      ...(found !== undefined && isGuest && (await unlessAborted(askGateway(() => openGateway(found)), options.signal))),
    };
  } finally {
    found?.release();
  }
}

/** Of a VM in use, whoever it belongs to. */
export async function networkInfoOf(vm: OpenedVm, options: { signal?: AbortSignal } = {}): Promise<NetworkInfo> {
  if (vm.shared) return networkInfoVm(vm.vmId, options);
  checkSignal(options.signal);
  if (vm.openGateway === undefined) return none(vm.vmId);
  return { ...describe(vm.vmId, vm.network!.policy), ...(await addresses()), secrets: vm.network!.secrets.map(({ name, host }) => ({ name, host })), ...(await unlessAborted(askGateway(vm.openGateway), options.signal)) };
}

function none(vmId: string): NetworkInfo {
  return { vmId, networkEnabled: false, policy: "none" };
}

function describe(vmId: string, { mode, allowHosts, denyHosts, allowNets }: NetworkPolicy): NetworkInfo {
  return { vmId, networkEnabled: true, policy: mode, allowedHosts: allowHosts, deniedHosts: denyHosts, allowedNets: allowNets };
}

/** Of every guest, as each has a network of its own. */
async function addresses(): Promise<Partial<NetworkInfo>> {
  const { guestNetwork } = await import("../guest-network.js");
  return { guestIp: guestNetwork.address, gatewayIp: guestNetwork.gateway, dns: guestNetwork.nameServer, interface: "eth0" };
}

async function askGateway(open: OpenGateway): Promise<Partial<NetworkInfo>> {
  const opened = await open().catch(() => undefined);
  if (opened === undefined) return { gatewayRunning: false };
  try {
    const { counters, published_ports: ports, last_refusals: refusals } = await opened.control.info();
    return {
      gatewayRunning: true,
      publishedPorts: ports.map((each) => ({ protocol: each.protocol, hostIp: each.host_ip, hostPort: each.host_port, guestPort: each.guest_port })),
      counters: {
        connectionsOpen: counters.connections_open,
        connectionsTotal: counters.connections_total,
        refusedTotal: counters.refused_total,
        dnsQueries: counters.dns_queries,
        bytesSent: counters.bytes_sent,
        bytesReceived: counters.bytes_received,
      },
      lastRefusals: refusals.map(auditRecord),
    };
  } catch (error) {
    if (error instanceof PyroError && error.code === "VMM_EXITED") return { gatewayRunning: false };
    throw error;
  } finally {
    opened.release();
  }
}

/**
 * Another policy, in place of the one that it has; connections that are not allowed any more are reset. With `network` false nothing is allowed.
 * Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE for a VM without a network, VMM_EXITED where its gateway is gone, CANCELLED.
 */
export async function setNetworkVm(vmId: string, request: PolicyRequest, options: { signal?: AbortSignal } = {}): Promise<NetworkInfo> {
  const policy = await changedPolicy(request);
  await withVm(vmId, options.signal, async ({ directory, record, found }) => {
    if (record.network === undefined) throw noNetwork(vmId);
    if (record.executionMode === "host_compat") throw new PyroError("UNSUPPORTED", `The VM ${vmId} is none: on the host there is no gateway that could hold a policy.`);
    if (found !== undefined) await tellGateway(() => openGateway(found), policy);
    await writeVmRecord(directory, { ...record, network: { ...record.network, policy } });
  });
  return networkInfoVm(vmId, options);
}

/** Of a VM in use, whoever it belongs to. */
export async function setNetworkOf(vm: OpenedVm, request: PolicyRequest, options: { signal?: AbortSignal } = {}): Promise<NetworkInfo> {
  if (vm.shared) return setNetworkVm(vm.vmId, request, options);
  checkSignal(options.signal);
  const policy = await changedPolicy(request);
  if (vm.openGateway === undefined) throw noNetwork(vm.vmId);
  await tellGateway(vm.openGateway, policy);
  vm.network = { ...vm.network!, policy };
  return networkInfoOf(vm, options);
}

async function changedPolicy(request: PolicyRequest): Promise<NetworkPolicy> {
  return (await import("../network-words.js")).policyOf(request, request.network === false);
}

async function tellGateway(open: OpenGateway, policy: NetworkPolicy): Promise<void> {
  const { wirePolicy } = await import("../gateway.js");
  const { control, release } = await open();
  try {
    await control.setPolicy(wirePolicy(policy));
  } finally {
    release();
  }
}

function noNetwork(vmId: string): PyroError {
  return new PyroError("INVALID_STATE", `The VM ${vmId} has no network.`, { hint: "A VM gets its network when it is made: make another one with --network (network)." });
}
