/** The gateway of a VM that is starting: what it is told, and what the guest and its commands are told of it. */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { PyroError, toPyroError } from "../base/error.js";
import { settings } from "../base/settings.js";
import { GatewayControl, type GatewayConfiguration } from "../net/index.js";
import type { RunningVm } from "../vmm/index.js";
import type { Network, PublishedPort } from "./network.js";
import { readSecrets } from "./network-words.js";

/** What of a network is known only when its VM starts. */
export interface NetworkStart extends Network {
  secretValues: readonly { name: string; host: string; value: string; placeholder: string }[];
  /** Absolute. */
  auditFile?: string;
}

/** The gateway of a VM of ours. */
export interface VmGateway {
  control: GatewayControl;
  /** Until then it lets nothing through, and what the guest sends waits. Rejects with INVALID_ARGUMENT, EXISTS where a port is taken, DENIED, VMM_EXITED, TIMEOUT. */
  ready: Promise<ReadyGateway>;
}

export interface ReadyGateway {
  published: readonly PublishedPort[];
  /** Of the authority that the guest is to trust, PEM; only where there are secrets. */
  caCertificate?: string;
}

/** Reads secrets' values. Throws INVALID_ARGUMENT, NOT_FOUND, DENIED. */
export async function prepareNetwork(network: Network, auditFile?: string): Promise<NetworkStart> {
  const values = await readSecrets(network.secrets);
  const placeholders = new Map(values.map(({ name }) => [name, `pyro_${randomBytes(20).toString("hex")}`]));
  return { ...network, secretValues: values.map(({ name, host, value }) => ({ name, host, value, placeholder: placeholders.get(name)! })), ...(auditFile !== undefined && { auditFile }) };
}

/** What commands in the guest have in place of secrets. */
export function placeholderVariables({ secretValues }: NetworkStart): Record<string, string> {
  return Object.fromEntries(secretValues.map(({ name, placeholder }) => [name, placeholder]));
}

/** Tells it what to be. */
export function configureGateway(vm: RunningVm, vmId: string, network: NetworkStart): VmGateway {
  const control = new GatewayControl(vm.gateway!);
  const ready = control.configure(configurationOf(vmId, network)).then(
    ({ published, ca_certificate: caCertificate }): ReadyGateway => ({
      published: published.map((each) => ({ protocol: each.protocol, hostIp: each.host_ip, hostPort: each.host_port, guestPort: each.guest_port })),
      ...(caCertificate !== undefined && { caCertificate }),
    }),
    (error: unknown) => {
      const failure = toPyroError(error);
      if (failure.code !== "VMM_EXITED") throw failure;
      throw new PyroError("VMM_EXITED", `The VM's network gateway ended: ${vm.gatewayLog?.() || "it did not say why"}`, { cause: error });
    },
  );
  ready.catch(() => {}); // whoever needs it hears of it
  return { control, ready };
}

/** Whether there is anything that the VM's user has to hear of before the first command. */
export function isAwaited({ publish, secretValues }: NetworkStart): boolean {
  return publish.length > 0 || secretValues.length > 0;
}

function configurationOf(vmId: string, { policy, publish, secretValues, auditFile }: NetworkStart): GatewayConfiguration {
  const { http_proxy: http, HTTPS_PROXY, https_proxy: https = HTTPS_PROXY, NO_PROXY, no_proxy: noProxy = NO_PROXY } = settings.proxies();
  const certificates = settings.systemCertificates();
  const resolvers = settings.nameServers();
  return {
    vm_id: vmId,
    policy: wirePolicy(policy),
    publish: publish.map(({ protocol, hostIp, hostPort, guestPort }) => ({ protocol, host_ip: hostIp, host_port: hostPort, guest_port: guestPort })),
    secrets: secretValues.map(({ name, host, value, placeholder }) => ({ name, host, value, placeholder })),
    proxy: { ...(http !== undefined && { http }), ...(https !== undefined && { https }), ...(noProxy !== undefined && { no_proxy: noProxy }) },
    ...(auditFile !== undefined && { audit_file: auditFile }),
    ...(resolvers.length > 0 && { resolvers }),
    ...(existsSync(certificates) && { ca_file: certificates }),
  };
}

/** As the gateway is told it. */
export function wirePolicy({ mode, allowHosts, denyHosts, allowNets }: Network["policy"]): object {
  return { mode, allow_hosts: allowHosts, deny_hosts: denyHosts, allow_nets: allowNets };
}
