import * as z from "zod";
import { statusVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { vmShape } from "../shapes.js";
import { defineTool } from "../tool.js";
import { vmOutcome } from "../vm-outcome.js";

export const vmStatus = defineTool({
  name: "vm_status",
  title: "Show a VM",
  description: "Says what is true of a VM now: its state, sizes, when it expires, and why it failed if it did. VMs of vm_run have no vm_id that could be asked for. All VMs are in the resource pyro://vms, a VM's console in pyro://vms/{vm_id}/console.",
  input: z.strictObject({ vm_id: argument.vmId }),
  output: vmShape,
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  call: async ({ vm_id: vmId }, { signal }) => vmOutcome(await statusVm(vmId, { signal })),
});
