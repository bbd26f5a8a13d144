import * as z from "zod";
import { execInVm, limits } from "../../core/index.js";
import { argument } from "../arguments.js";
import { captureOutput } from "../command-output.js";
import { checkFiles, describeFiles, fileArguments, readFiles, writeFiles } from "../files.js";
import { execShape } from "../shapes.js";
import { defineTool } from "../tool.js";

export const vmCall = defineTool({
  name: "vm_call",
  title: "Run one of many commands in a VM",
  description: "Runs a command in a started VM, and the VM lives on with all files that the command left: call it as often as needed, also at the same time. Use it after vm_open (or vm_create and vm_start), and vm_delete when done. Processes that it leaves in the background live on. vm_exec is the other one: it ends the VM.",
  input: z.strictObject({ vm_id: argument.vmId, command: argument.command, timeout_seconds: argument.timeoutSeconds, ...fileArguments }),
  output: execShape,
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  takesSlot: true,
  call: async ({ vm_id: vmId, command, timeout_seconds: timeoutSeconds = limits.timeoutSeconds.default, files, return_paths: returnPaths }, { signal, progress, shared }) => {
    checkFiles(files);
    return shared.slots.use(
      signal,
      () => progress.say("waiting for other calls of this server"),
      () =>
        shared.vms.use(vmId, signal, async (vm) => {
          if (files !== undefined) await writeFiles(vm, files, signal);
          progress.say("running the command");
          const output = captureOutput(shared.results);
          const outcome = output.outcome(await execInVm(vm, vm.environment, { command, timeoutSeconds, ...output.options }, { signal }));
          if (returnPaths === undefined) return outcome;
          const returned = await readFiles(vm, returnPaths, signal);
          return { ...outcome, structured: { ...outcome.structured, returned_files: returned }, text: `${outcome.text}\n${describeFiles(returned)}` };
        }),
    );
  },
});
