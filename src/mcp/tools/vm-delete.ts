import * as z from "zod";
import { deleteVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { defineTool } from "../tool.js";

export const vmDelete = defineTool({
  name: "vm_delete",
  title: "Delete a VM",
  description: "Ends a VM, whatever its state, and removes all that is left of it: its disk, its log, its record. Use it as soon as a VM of vm_create or vm_open is no longer needed; what is forgotten ends with its ttl_seconds.",
  input: z.strictObject({ vm_id: argument.vmId }),
  output: z.looseObject({ vm_id: z.string(), deleted: z.literal(true) }),
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  call: async ({ vm_id: vmId }, { signal }) => {
    const { deleted } = await deleteVm(vmId, { signal });
    return { structured: { vm_id: vmId, deleted }, text: `${vmId} is deleted` };
  },
});
