import * as z from "zod";
import { harmlessLine } from "../../base/harmless.js";
import { toJson, type Json } from "../../base/json.js";
import { networkInfoVm, type NetworkInfo } from "../../core/index.js";
import { argument } from "../arguments.js";
import { defineTool } from "../tool.js";

export const vmNetworkInfo = defineTool({
  name: "vm_network_info",
  title: "Show a VM's network",
  description: "Says whether a VM has a network, what it may reach, and what was refused last. Use it before relying on the network, or to explain why a connection fails.",
  input: z.strictObject({ vm_id: argument.vmId }),
  output: z.looseObject({ vm_id: z.string(), network_enabled: z.boolean(), policy: z.string().describe("What the guest may reach.") }),
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  call: async ({ vm_id: vmId }, { signal }) => {
    const info = await networkInfoVm(vmId, { signal });
    return { structured: toJson(info) as { [key: string]: Json }, text: describe(info) };
  },
});

function describe({ vmId, networkEnabled, policy, allowedHosts = [], deniedHosts = [], allowedNets = [], gatewayRunning, publishedPorts = [], lastRefusals = [] }: NetworkInfo): string {
  if (!networkEnabled) return `${vmId} has no network`;
  const list = (words: readonly string[]) => harmlessLine(words.join(", "), 2000);
  const reach = policy === "public" ? ["the public internet"] : [list(allowedHosts), list(allowedNets)].filter((each) => each !== "");
  return [
    `${vmId} has a network; it may reach ${reach.join(" and ") || "nothing"}${deniedHosts.length === 0 ? "" : `, but not ${list(deniedHosts)}`}`,
    ...(gatewayRunning === false ? ["Its gateway is gone, so that it reaches nothing until it is stopped and started again."] : []),
    // 0 is one that will be chosen when it is started.
    ...publishedPorts.filter(({ hostPort }) => hostPort > 0).map(({ protocol, hostIp, hostPort, guestPort }) => `Its port ${guestPort}/${protocol} is ${hostIp}:${hostPort} on the host.`),
    ...lastRefusals.map((each) => harmlessLine(`refused: ${each.protocol} ${[each.name, each.address && `${each.address}:${each.port ?? ""}`].filter(Boolean).join(" ")}: ${each.reason ?? each.rule ?? ""}`, 400)),
  ].join("\n");
}
