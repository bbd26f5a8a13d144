/** The gateway as a process: its descriptors, its control, its end. */
import { fstatSync } from "node:fs";
import { Socket, connect, createServer } from "node:net";
import { PyroError } from "../base/error.js";
import { Audit } from "./audit.js";
import type { GatewayConfiguration, GatewayConfigured, GatewayInfo } from "./control/messages.js";
import { ControlServer } from "./control/server.js";
import { UpstreamResolver } from "./dns/resolver.js";
import { Gateway } from "./gateway.js";
import type { PolicyHook } from "./policy-hook.js";
import { gatewayDescriptors } from "./program.js";

/** What is read of the cable at once. */
const readBytes = 262_144;

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
    info: (): GatewayInfo => {
      const { policy, audit } = configured();
      const { counters } = audit;
      return {
        policy,
        published_ports: [],
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
  const configure = (params: Record<string, unknown>): GatewayConfigured => {
    if (running !== undefined) throw new PyroError("INVALID_STATE", "The gateway is configured already.");
    const { policy, audit_file: file, resolvers } = params as unknown as GatewayConfiguration;
    const hook = makeHook(policy);
    const audit = new Audit(file, (record) => control.tell(record));
    const resolver = new UpstreamResolver(resolvers);
    const gateway = new Gateway({
      socket: cable,
      hook,
      audit,
      resolve: (name, type) => resolver.resolve(name, type),
      dial: (address, port) => connect({ host: address, port, allowHalfOpen: true }),
      resume: () => cable.resume(),
    });
    running = { audit, policy, gateway };
    beginReading();
    return { published: [] };
  };
  control.serve(new Socket({ fd: gatewayDescriptors.maker }), { configure });
  if (isSocket(gatewayDescriptors.listener)) createServer((client) => control.serve(client)).listen({ fd: gatewayDescriptors.listener });

  // What the guest sends before there is a policy waits in the kernel.
  const cable: Socket = new Socket({ fd: gatewayDescriptors.cable, onread: { buffer, callback: (bytes: number, into: Buffer) => running?.gateway.receive(into.subarray(0, bytes)) ?? false } } as ConstructorParameters<typeof Socket>[0]);
  cable.pause();
  cable.on("error", () => cable.destroy());
  const ended = new Promise<void>((resolve) => cable.once("close", resolve));
  await Promise.race([mayRead, ended]);
  cable.resume();
  await ended;
  running?.gateway.close();
  running?.audit.flush();
}

function isSocket(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isSocket();
  } catch {
    return false;
  }
}
