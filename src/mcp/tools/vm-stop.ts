import * as z from "zod";
import { stopVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { vmShape } from "../shapes.js";
import { defineTool } from "../tool.js";
import { vmOutcome } from "../vm-outcome.js";

export const vmStop = defineTool({
  name: "vm_stop",
  title: "Stop a VM",
  description: "Ends a VM and keeps its disk: vm_start boots it again with the same files. What runs in it is ended. Use vm_delete when nothing of it is needed any more. Stopping one that is stopped is no error.",
  input: z.strictObject({ vm_id: argument.vmId }),
  output: vmShape,
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
  call: async ({ vm_id: vmId }, { signal, progress }) => {
    progress.say("waiting for the guest to write its disk and power off");
    return vmOutcome(await stopVm(vmId, { signal }));
  },
});
