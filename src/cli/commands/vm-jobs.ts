import type { Command as Program } from "commander";
import { attachJob, attachVm, killJob, listJobs, startJob, type Command, type OpenedVm, type Surroundings } from "../../core/index.js";
import type { CommandContext } from "../program.js";
import { formatTable } from "../render.js";

interface JsonFlag {
  json?: boolean;
}

/** `jobs`, `attach` and `kill`; `vm exec --detach` starts them. */
export function defineJobs(vm: Program, context: CommandContext): void {
  const { output } = context;

  vm.command("jobs")
    .description("list the background jobs of a VM (`pyro vm exec --detach` starts them)")
    .argument("<vm-id>", "see `pyro vm list`")
    .option("--json", "print JSON")
    .action(async (vmId: string, flags: JsonFlag) => {
      const jobs = await inVm(vmId, context, listJobs);
      if (flags.json) return output.json({ jobs });
      output.result(formatTable([["JOB", "PID", "STATE", "STARTED", "COMMAND"], ...jobs.map((each) => [each.name, String(each.pid), each.exitCode === undefined ? "running" : `exited ${each.exitCode}`, each.startedAt, each.command.join(" ")])]));
    });

  vm.command("attach")
    .description("print what a VM still has of a job's output, then what comes, until it ends; status as of `pyro vm exec`")
    .argument("<vm-id>", "see `pyro vm list`")
    .argument("<job>", "see `pyro vm jobs`")
    .option("--json", "print JSON at its end, and not the output")
    .addHelpText("after", "\nCtrl-C ends the attachment; the job goes on.")
    .action(async (vmId: string, name: string, flags: JsonFlag) => {
      context.exitStatus = await inVm(vmId, context, async (opened) => {
        const job = await attachJob(opened, name, AbortSignal.any([context.interrupts.signal, output.lost]));
        if (flags.json) {
          job.stdout.resume();
          job.stderr.resume();
        } else {
          job.stdout.pipe(output.guestStdout, { end: false });
          job.stderr.pipe(output.guestStderr, { end: false });
        }
        const ended = Promise.all([job.stdout, job.stderr].map((stream) => new Promise((resolve) => stream.once("close", resolve))));
        const exit = await job.exit;
        await ended;
        if (flags.json) output.json({ name, ...exit });
        return exit.exitCode;
      });
    });

  vm.command("kill")
    .description("send a job a signal (its process group; SIGKILL reaches all it started)")
    .argument("<vm-id>", "see `pyro vm list`")
    .argument("<job>", "see `pyro vm jobs`")
    .option("--signal <name>", "name or Linux number (default SIGTERM)")
    .action(async (vmId: string, name: string, flags: { signal?: string }) => {
      const all = flags.signal !== undefined && /^(sig)?kill$|^9$/i.test(flags.signal);
      await inVm(vmId, context, (opened) => killJob(opened, name, flags.signal, all ? "all" : "group"));
    });
}

/** `vm exec --detach`: prints the job's name. */
export async function startDetached(vmId: string, request: Surroundings & { command: Command; name?: string }, json: boolean, context: CommandContext): Promise<number> {
  const started = await inVm(vmId, context, (opened) => startJob(opened, request, { signal: context.interrupts.signal }));
  if (json) context.output.json(started);
  else context.output.result(`${started.name}\n`);
  return 0;
}

async function inVm<T>(vmId: string, context: CommandContext, work: (vm: OpenedVm) => Promise<T>): Promise<T> {
  const vm = await attachVm(vmId, { signal: context.interrupts.signal });
  try {
    return await work(vm);
  } finally {
    await vm.close();
  }
}
