import * as z from "zod";
import { createVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { vmShape } from "../shapes.js";
import { defineTool } from "../tool.js";
import { vmOutcome } from "../vm-outcome.js";

export const createArguments = {
  environment: argument.environment,
  vcpu_count: argument.vcpuCount,
  mem_mib: argument.memMib,
  ttl_seconds: argument.ttlSeconds,
  network: argument.network,
  allow_hosts: argument.allowHosts,
  deny_hosts: argument.denyHosts,
  allow_host_compat: argument.allowHostCompat,
};

export const vmCreate = defineTool({
  name: "vm_create",
  title: "Create a VM",
  description: "Makes the record of a VM and gives its vm_id; nothing runs until vm_start. Use it when the steps of a VM's life are to be told apart. For one command use vm_run; for several on one VM vm_open does this and vm_start in one call.",
  input: z.strictObject(createArguments),
  output: vmShape,
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
  call: async (args, { signal, shared }) => {
    shared.clearAway();
    return vmOutcome(await createVm(createRequest(args), { signal }));
  },
});

export function createRequest(args: z.output<z.ZodObject<typeof createArguments>>): Parameters<typeof createVm>[0] {
  return {
    environment: args.environment,
    ...(args.vcpu_count !== undefined && { vcpuCount: args.vcpu_count }),
    ...(args.mem_mib !== undefined && { memMib: args.mem_mib }),
    ...(args.ttl_seconds !== undefined && { ttlSeconds: args.ttl_seconds }),
    ...(args.network !== undefined && { network: args.network }),
    ...(args.allow_hosts !== undefined && { allowHosts: args.allow_hosts }),
    ...(args.deny_hosts !== undefined && { denyHosts: args.deny_hosts }),
    ...(args.allow_host_compat !== undefined && { allowHostCompat: args.allow_host_compat }),
  };
}
