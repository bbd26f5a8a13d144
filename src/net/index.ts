/** The port to the network: the gateway's program, and how to talk to one that runs. */
export { GatewayControl, connectGateway, gatewaySocketName } from "./control/client.js";
export type { GatewayConfiguration, GatewayConfigured, GatewayEvent, GatewayInfo, GatewaySecret, PublishRequest } from "./control/messages.js";
export type { AuditRecord } from "./audit.js";
export type { AddressQuery, ConnectQuery, Decision, HelloQuery, NameQuery, PolicyHook } from "./policy-hook.js";
export { link as guestLink, showAddress } from "./addresses.js";
export { gatewayDescriptors, gatewayProgram } from "./program.js";
import type { PolicyHook } from "./policy-hook.js";

/** Is the gateway, until its guest is gone. Loaded when it is called: nobody but the gateway's own program needs it. */
export async function runGateway(makeHook: (policy: unknown) => PolicyHook): Promise<void> {
  const { runGateway: run } = await import("./run.js");
  return run(makeHook);
}
