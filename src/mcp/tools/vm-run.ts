import * as z from "zod";
import { runInVm } from "../../core/index.js";
import { argument } from "../arguments.js";
import { captureOutput } from "../command-output.js";
import { checkFiles, describeFiles, fileArguments, readFiles, writeFiles } from "../files.js";
import { execShape } from "../shapes.js";
import { defineTool } from "../tool.js";

export const vmRun = defineTool({
  name: "vm_run",
  title: "Run a command in a VM of its own",
  description:
    "Runs one command in a new virtual machine that is isolated from the host, and throws the machine away: the first choice for any command or code that nobody has checked. The VM starts in a fraction of a second, has its own kernel, files and processes, no network unless you ask for one, and root in it harms nothing. Bring files with `files`, get files with `return_paths`. A command that exits with another status than 0 is a result, not an error. Nothing is kept between calls: for several commands on the same files, join them in one shell line, or use vm_open and vm_call.",
  input: z.strictObject({
    environment: argument.environment,
    command: argument.command,
    vcpu_count: argument.vcpuCount,
    mem_mib: argument.memMib,
    timeout_seconds: argument.timeoutSeconds,
    ttl_seconds: argument.ttlSeconds,
    network: argument.network,
    allow_hosts: argument.allowHosts,
    deny_hosts: argument.denyHosts,
    allow_host_compat: argument.allowHostCompat,
    ...fileArguments,
  }),
  output: execShape,
  // A VM of its own harms nothing; `allow_host_compat` and `network` reach further.
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  takesSlot: true,
  call: async ({ files, return_paths: returnPaths, ...args }, { signal, progress, shared }) => {
    checkFiles(files);
    shared.clearAway();
    const output = captureOutput(shared.results);
    let returned: Awaited<ReturnType<typeof readFiles>> | undefined;
    const result = await shared.slots.use(
      signal,
      () => progress.say("waiting for other calls of this server"),
      () =>
        runInVm(
          {
            environment: args.environment,
            command: args.command,
            ...(args.vcpu_count !== undefined && { vcpuCount: args.vcpu_count }),
            ...(args.mem_mib !== undefined && { memMib: args.mem_mib }),
            ...(args.timeout_seconds !== undefined && { timeoutSeconds: args.timeout_seconds }),
            ...(args.ttl_seconds !== undefined && { ttlSeconds: args.ttl_seconds }),
            ...(args.network !== undefined && { network: args.network }),
            ...(args.allow_hosts !== undefined && { allowHosts: args.allow_hosts }),
            ...(args.deny_hosts !== undefined && { denyHosts: args.deny_hosts }),
            ...(args.allow_host_compat !== undefined && { allowHostCompat: args.allow_host_compat }),
          },
          {
            signal,
            onPhase: progress.phase,
            ...output.options,
            ...(files !== undefined && { before: (vm) => writeFiles(vm, files, signal) }),
            ...(returnPaths !== undefined && {
              after: async (vm) => {
                returned = await readFiles(vm, returnPaths, signal);
              },
            }),
          },
        ),
    );
    const outcome = output.outcome(result);
    if (returned === undefined) return outcome;
    return { ...outcome, structured: { ...outcome.structured, returned_files: returned }, text: `${outcome.text}\n${describeFiles(returned)}` };
  },
});
