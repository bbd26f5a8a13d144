import * as z from "zod";
import { toJson, type Json } from "../../base/json.js";
import { networkInfoVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { defineTool } from "../tool.js";

export const vmNetworkInfo = defineTool({
  name: "vm_network_info",
  title: "Show a VM's network",
  description: "Says whether a VM has a network and what it may reach. Use it before relying on the network, or to explain why a connection fails.",
  input: z.strictObject({ vm_id: argument.vmId }),
  output: z.looseObject({ vm_id: z.string(), network_enabled: z.boolean(), policy: z.string().describe("What the guest may reach.") }),
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  call: async ({ vm_id: vmId }) => {
    const info = await networkInfoVm(vmId);
    return { structured: toJson(info) as { [key: string]: Json }, text: info.networkEnabled ? `${vmId} has a network; policy: ${info.policy}` : `${vmId} has no network` };
  },
});
