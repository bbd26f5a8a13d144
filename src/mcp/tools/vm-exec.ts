import * as z from "zod";
import { execVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { captureOutput } from "../command-output.js";
import { execShape } from "../shapes.js";
import { defineTool } from "../tool.js";

export const vmExec = defineTool({
  name: "vm_exec",
  title: "Run a VM's only command",
  description: "Runs ONE command in a started VM, and the VM is gone afterwards, with all that is in it. Use it as the last step of vm_create, vm_start, vm_exec. To run several commands in a VM that lives on, use vm_call; without a VM of your own, vm_run.",
  input: z.strictObject({ vm_id: argument.vmId, command: argument.command, timeout_seconds: argument.timeoutSeconds }),
  output: execShape,
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  takesSlot: true,
  call: ({ vm_id: vmId, command, timeout_seconds: timeoutSeconds }, { signal, progress, shared }) =>
    shared.slots.use(
      signal,
      () => progress.say("waiting for other calls of this server"),
      async () => {
        progress.say("running the command");
        const output = captureOutput(shared.results);
        const { captureBytes, ...sinks } = output.options;
        return output.outcome(await execVm(vmId, { command, captureBytes, ...sinks, ...(timeoutSeconds !== undefined && { timeoutSeconds }) }, { signal }));
      },
    ),
});
