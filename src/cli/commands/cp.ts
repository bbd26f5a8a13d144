import type { Command as Program } from "commander";
import { PyroError } from "../../base/error.js";
import { attachVm, copyIn, copyOut } from "../../core/index.js";
import type { CommandContext } from "../program.js";
import { formatBytes } from "../render.js";

interface CopyFlags {
  archive?: boolean;
  force?: boolean;
  parents?: boolean;
  json?: boolean;
  quiet?: boolean;
}

export function define(program: Program, context: CommandContext): void {
  const { output, interrupts } = context;
  program
    .command("cp")
    .summary("copy files into a VM and out of it")
    .description("Copies a file or a directory with all in it between the host and a started VM. It is there as a whole or not at all.")
    .usage("[flags] SOURCE DESTINATION   (one of them VM-ID:PATH)")
    .argument("<source>", "a path, or VM-ID:PATH")
    .argument("<destination>", "a path, or VM-ID:PATH; an existing directory gets the copy inside")
    .option("--archive", "keep owners, and set-user-id and set-group-id out of a VM too: only for guests you trust")
    .option("--force", "replace what is there (into a VM: file by file)")
    .option("--parents", "into a VM: make missing directories above the destination")
    .option("--json", "print JSON")
    .option("--quiet", "print nothing of pyro's own")
    .addHelpText(
      "after",
      `
Modes, times, links and hard links are kept. Links of the guest's are never followed on the host.

Examples:
  pyro cp src vm-k3v9x2mq:/work
  pyro cp vm-k3v9x2mq:/work/report.html .`,
    )
    .action(async (source: string, destination: string, flags: CopyFlags) => {
      const [from, to] = [parsePlace(source), parsePlace(destination)];
      if ((from.vmId === undefined) === (to.vmId === undefined)) {
        throw new PyroError("INVALID_ARGUMENT", "Exactly one of source and destination is in a VM.", { hint: "pyro cp src vm-k3v9x2mq:/work, or pyro cp vm-k3v9x2mq:/work/report.html ." });
      }
      const quiet = flags.json === true || flags.quiet === true;
      const vm = await attachVm((from.vmId ?? to.vmId)!, { signal: interrupts.signal });
      try {
        const result = await (from.vmId === undefined ? copyIn : copyOut)(vm, from.path, to.path, {
          signal: interrupts.signal,
          ...(flags.archive && { archive: true }),
          ...(flags.force && { replace: true }),
          ...(flags.parents && { makeParents: true }),
          ...(!quiet && { onProgress: ({ entries, contentBytes, path }) => output.status(`[cp] ${entries} entries, ${formatBytes(contentBytes)} ${path}`) }),
        });
        if (flags.json) output.json(result);
        else if (!quiet) output.line(`[cp] destination=${JSON.stringify(result.destination)} entries=${result.entries} bytes=${result.contentBytes} skipped=${result.skipped}`);
      } finally {
        await vm.close();
      }
    });
}

/** `vm-k3v9x2mq:/path` is in a VM; a path of the host's that looks so is written `./vm-…`. */
function parsePlace(text: string): { vmId?: string; path: string } {
  const [, vmId, path] = /^(vm-[0-9a-z]{1,16}):([^]*)$/.exec(text) ?? [];
  if (vmId === undefined) return { path: text };
  if (path === "") throw new PyroError("INVALID_ARGUMENT", `${text} names no path in the VM.`, { hint: `${vmId}:/root, say.` });
  return { vmId, path: path! };
}
