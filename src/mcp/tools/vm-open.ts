import * as z from "zod";
import { checkSignal } from "../../base/deadline.js";
import { createVm, deleteVm, startVm } from "../../core/index.js";
import { vmShape } from "../shapes.js";
import type { Progress } from "../progress.js";
import type { RunningVms } from "../running-vms.js";
import { defineTool, type Outcome } from "../tool.js";
import { vmOutcome } from "../vm-outcome.js";
import { createArguments, createRequest } from "./vm-create.js";

export const vmOpen = defineTool({
  name: "vm_open",
  title: "Open a VM for many commands",
  description: "Creates and starts a VM in one call, and gives its vm_id. Use it when several commands are to see the same files or the same installed packages: then vm_call as often as needed, and vm_delete at the end. It ends by itself after ttl_seconds, counted from now, so give as many as the work takes.",
  input: z.strictObject(createArguments),
  output: vmShape,
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: true },
  takesSlot: true,
  call: (args, { signal, progress, shared }) => {
    shared.clearAway();
    return shared.slots.use(
      signal,
      () => progress.say("waiting for other calls of this server"),
      () => shared.tidily(open(args, signal, progress, shared.running)),
    );
  },
});

async function open(args: Parameters<typeof createRequest>[0], signal: AbortSignal, progress: Progress, running: RunningVms): Promise<Outcome> {
  const { vmId } = await createVm(createRequest(args), { signal });
  try {
    const vm = await running.start(vmId, () => startVm(vmId, { signal, onPhase: progress.phase }));
    checkSignal(signal);
    return vmOutcome(vm);
  } catch (error) {
    await deleteVm(vmId).catch(() => {}); // its id was told to nobody; if this fails, its time to live ends it
    throw error;
  }
}
