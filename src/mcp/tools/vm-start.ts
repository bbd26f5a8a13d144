import * as z from "zod";
import { startVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { vmShape } from "../shapes.js";
import { defineTool } from "../tool.js";
import { vmOutcome } from "../vm-outcome.js";

export const vmStart = defineTool({
  name: "vm_start",
  title: "Start a VM",
  description: "Starts a VM that was created, or boots one that was stopped, with the disk it had. It then runs on its own, also without this server, until vm_exec, vm_stop, vm_delete or its ttl_seconds ends it. Starting one that runs is an error.",
  input: z.strictObject({ vm_id: argument.vmId }),
  output: vmShape,
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: true },
  takesSlot: true,
  call: ({ vm_id: vmId }, { signal, progress, shared }) =>
    shared.slots.use(
      signal,
      () => progress.say("waiting for other calls of this server"),
      async () => vmOutcome(await shared.running.start(vmId, () => startVm(vmId, { signal, onPhase: progress.phase }))),
    ),
});
