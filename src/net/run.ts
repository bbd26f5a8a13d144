/** The gateway as a process: its descriptors, its control, its end. */
import { createSocket } from "node:dgram";
import { fstatSync } from "node:fs";
import { Socket, createServer, isIP } from "node:net";
import { PyroError } from "../base/error.js";
import { Audit } from "./audit.js";
import type { GatewayConfiguration, GatewayConfigured, GatewayInfo, PublishRequest } from "./control/messages.js";
import { ControlServer } from "./control/server.js";
import { dialBy } from "./dial.js";
import { HostsFile } from "./dns/hosts.js";
import { RecordType, ResponseCode } from "./dns/message.js";
import { UpstreamResolver, resolvedTo } from "./dns/resolver.js";
import { StandIns } from "./dns/stand-ins.js";
import { Gateway } from "./gateway.js";
import type { PolicyHook } from "./policy-hook.js";
import { gatewayDescriptors } from "./program.js";
import { Proxies, type Proxy } from "./proxy.js";
import type { Intercept } from "./secrets/intercept.js";
import { Secrets, checkSecrets } from "./secrets/secrets.js";

/** Of answers that no resolver gave. */
const localTtlSeconds = 60;
/** What is read of the cable at once. */
const readBytes = 262_144;

const lastTurns = 100;

/** Is the gateway until the cable ends. `makeHook` makes rules of what `configure` calls policy, or throws INVALID_ARGUMENT. */
export async function runGateway(makeHook: (policy: unknown) => PolicyHook): Promise<void> {
  const buffer = Buffer.allocUnsafeSlow(readBytes);
  let running: { gateway: Gateway; audit: Audit; policy: unknown } | undefined;
  let beginReading = () => {};
  const mayRead = new Promise<void>((resolve) => (beginReading = resolve));
  const configured = () => {
    if (running === undefined) throw new PyroError("INVALID_STATE", "The gateway is not configured yet.");
    return running;
  };

  const control = new ControlServer({
    policy: ({ policy }) => {
      const current = configured();
      current.gateway.setHook(makeHook(policy));
      current.policy = policy;
    },
    publish: (params) => configured().gateway.published.open(params as unknown as PublishRequest),
    unpublish: (params) => configured().gateway.published.close(params as unknown as PublishRequest),
    info: (): GatewayInfo => {
      const { policy, audit, gateway } = configured();
      const { counters } = audit;
      return {
        policy,
        published_ports: gateway.published.list(),
        counters: {
          connections_open: counters.connectionsOpen,
          connections_total: counters.connectionsTotal,
          refused_total: counters.refusedTotal,
          dns_queries: counters.dnsQueries,
          bytes_sent: counters.bytesSent,
          bytes_received: counters.bytesReceived,
        },
        last_refusals: [...audit.lastRefusals],
      };
    },
  });
  const configure = async (params: Record<string, unknown>): Promise<GatewayConfigured> => {
    if (running !== undefined) throw new PyroError("INVALID_STATE", "The gateway is configured already.");
    const { vm_id: vmId, policy, publish = [], audit_file: file, secrets: known = [], resolvers, proxy, ca_file: caFile } = params as unknown as GatewayConfiguration;
    const hook = makeHook(policy);
    const secrets = new Secrets(checkSecrets(known));
    const proxies = new Proxies(proxy);
    const taking = secrets.isEmpty ? undefined : await takeOver(vmId, caFile);
    const audit = new Audit(file, (record) => control.tell(record));
    const hosts = new HostsFile();
    const standIns = new StandIns();
    const resolver = new UpstreamResolver(resolvers);
    const gateway = new Gateway({
      socket: cable,
      descriptor: gatewayDescriptors.cable,
      hook,
      audit,
      secrets,
      resolve: async (name, type) => {
        const local = type === RecordType.A ? hosts.addressesOf(name) : undefined;
        if (local !== undefined) return resolvedTo(local, localTtlSeconds);
        const resolution = await resolver.resolve(name, type);
        if (type !== RecordType.A || resolution.code === ResponseCode.ok || !StandIns.areFor(name) || !proxies.isFor(name)) return resolution;
        return { ...resolvedTo([standIns.addressFor(name)], localTtlSeconds), isStandIn: true };
      },
      isStandIn: (address) => standIns.has(address),
      dial: dialBy(proxies, { plainly: !secrets.isEmpty, ...(proxies.needTls && { secure: await secureDial(caFile) }) }),
      dialDatagrams: (address, port) => {
        const socket = createSocket("udp4");
        socket.connect(port, address);
        return socket;
      },
      resume: () => cable.resume(),
      ...(taking !== undefined && { intercept: taking.intercept }),
    });
    const published: PublishRequest[] = [];
    try {
      for (const each of publish) published.push(await gateway.published.open(each));
    } catch (error) {
      gateway.close();
      throw error;
    }
    running = { audit, policy, gateway };
    beginReading();
    return { published, ...(taking !== undefined && { ca_certificate: taking.certificate }) };
  };
  const maker = new Socket({ fd: gatewayDescriptors.maker });
  control.serve(maker, { configure });
  if (isSocket(gatewayDescriptors.listener)) createServer((client) => control.serve(client)).listen({ fd: gatewayDescriptors.listener });

  // What the guest sends before there is a policy waits in the kernel.
  const cable: Socket = new Socket({ fd: gatewayDescriptors.cable, onread: { buffer, callback: (bytes: number, into: Buffer) => running?.gateway.receive(into.subarray(0, bytes)) ?? false } } as ConstructorParameters<typeof Socket>[0]);
  cable.pause();
  cable.on("error", () => cable.destroy());
  const ended = new Promise<void>((resolve) => cable.once("close", resolve));
  await Promise.race([mayRead, new Promise((resolve) => maker.once("close", resolve))]);
  if (running === undefined) return; // nobody else could configure it
  cable.resume();
  await ended;
  running.gateway.close();
  // Each connection's last record comes when its socket is closed, which is a turn or two from now.
  for (let turn = 0; turn < lastTurns && running.audit.counters.connectionsOpen > 0; turn++) await new Promise((resolve) => setImmediate(resolve));
  running.audit.flush();
}

/** TLS, and all that belongs to it, is loaded for VMs with secrets alone. */
async function takeOver(vmId: string, caFile: string | undefined): Promise<{ certificate: string; intercept: Intercept }> {
  const [{ Authority }, { intercept }, { trustedCertificates }] = await Promise.all([import("./secrets/authority.js"), import("./secrets/interception.js"), import("./trusted.js")]);
  const authority = new Authority(vmId);
  const trusted = await trustedCertificates(caFile);
  return { certificate: authority.certificate, intercept: (interception) => intercept({ contextFor: (name) => authority.contextFor(name), trusted }, interception) };
}

/** A proxy that wants TLS proves itself as any server does. */
async function secureDial(caFile: string | undefined): Promise<(proxy: Proxy) => Socket> {
  const [{ connect }, { trustedCertificates }] = await Promise.all([import("node:tls"), import("./trusted.js")]);
  const ca = await trustedCertificates(caFile);
  return ({ host, port }) => {
    const options = { host, port, ca, allowHalfOpen: true, ...(isIP(host) === 0 && { servername: host }) };
    return connect(options);
  };
}

function isSocket(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isSocket();
  } catch {
    return false;
  }
}
