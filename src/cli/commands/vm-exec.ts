import type { Command as Program } from "commander";
import { PyroError } from "../../base/error.js";
import { attachVm, execInVm, execVm, limits, timeoutOf, type ExecResult, type Phase } from "../../core/index.js";
import { exactWords } from "../exact-words.js";
import { limitOption, surroundingOptions, type SurroundingFlags, surroundingsOf } from "../options.js";
import { refusalLines, warningLine } from "../phases.js";
import type { CommandContext } from "../program.js";
import { inputOf, terminalOptions, terminalVariables, type TerminalFlags } from "../terminal.js";
import { startDetached } from "./vm-jobs.js";
import { summaryLine } from "./run.js";

interface ExecFlags extends SurroundingFlags, TerminalFlags {
  timeoutSeconds?: number;
  json?: boolean;
  quiet?: boolean;
  rm?: boolean;
  detach?: boolean;
  job?: string;
}

export function defineExec(vm: Program, context: CommandContext): void {
  const command = vm
    .command("exec")
    .description("run a command in a started VM, which lives on (with --rm it is deleted afterwards)")
    .usage("VM-ID [flags] [--] COMMAND [ARG...]")
    .argument("<vm-id>", "see `pyro vm list`")
    .argument("[command...]", "executed as it is, without a shell; flags end at its first word")
    .addOption(limitOption("--timeout-seconds <n>", "for the command; then it is killed with all it started, status 124", "timeoutSeconds"));
  terminalOptions(surroundingOptions(command))
    .option("--rm", "this is its one command: the VM is gone afterwards, also if we are killed")
    .option("--detach", "run it in the background and print its name, see `pyro vm jobs`, `attach` and `kill`")
    .option("--job <name>", "the background job's name (default a new one)")
    .option("--json", "print one JSON object instead of streaming the output")
    .option("--quiet", "print nothing of pyro's own")
    .addHelpText("after", "\nExit status, -i and -t as of `pyro run`; a session with -t ends with the VM's time to live.\n\nExamples:\n  pyro vm exec vm-k3v9x2mq -- make test\n  pyro vm exec -it vm-k3v9x2mq -- bash\n  pyro vm exec vm-k3v9x2mq --user nobody --workdir /tmp -- id")
    .action(async (vmId: string, _words: string[], flags: ExecFlags) => {
      context.exitStatus = await exec(vmId, flags, context);
    });
}

async function exec(vmId: string, flags: ExecFlags, context: CommandContext): Promise<number> {
  const { output, interrupts, guestCommand } = context;
  if (guestCommand.length === 0) throw new PyroError("INVALID_ARGUMENT", "There is no command to run.", { hint: `pyro vm exec ${vmId} -- COMMAND` });
  if (flags.job !== undefined && flags.detach !== true) throw new PyroError("INVALID_ARGUMENT", "--job names a background job.", { hint: "Give --detach as well." });
  if (flags.detach) {
    if (flags.rm || flags.interactive || flags.tty || flags.timeoutSeconds !== undefined) throw new PyroError("INVALID_ARGUMENT", "A background job has no --timeout-seconds, no --rm, no -i and no -t.", { hint: `End it with \`pyro vm kill ${vmId} JOB\`.` });
    return startDetached(vmId, { command: exactWords(guestCommand), ...surroundingsOf(flags), ...(flags.job !== undefined && { name: flags.job }) }, flags.json === true, context);
  }
  const signal = AbortSignal.any([interrupts.signal, output.lost]);
  const request = {
    command: exactWords(guestCommand),
    ...surroundingsOf({ ...flags, env: { ...terminalVariables(flags), ...flags.env } }),
    ...inputOf(flags, output),
    ...(flags.json ? {} : { stdout: output.guestStdout, stderr: output.guestStderr, captureBytes: limits.captureBytes.min }),
    ...(flags.timeoutSeconds !== undefined && { timeoutSeconds: flags.timeoutSeconds }),
  };
  const options = {
    signal,
    ...(!flags.json && !flags.quiet && { onRefused: refusalLines(output, "exec") }),
    ...(!flags.json && { onPhase: (phase: Phase) => warningLine(output, phase) }),
    onStarted: (sendSignal: (signal: number) => void) => interrupts.handFirstTo(() => sendSignal(2)),
  };
  const result = flags.rm ? await execVm(vmId, request, options) : await execAndLeave(vmId, request, options);
  if (flags.json) output.json(result);
  else if (flags.quiet !== true) output.line(summaryLine("exec", result));
  return result.timedOut ? 124 : result.exitCode;
}

async function execAndLeave(vmId: string, request: Parameters<typeof execVm>[1], options: Parameters<typeof execVm>[2] & { signal: AbortSignal }): Promise<ExecResult> {
  const vm = await attachVm(vmId, options);
  try {
    return await execInVm(vm, vm.environment, { captureBytes: limits.captureBytes.default, ...request, timeoutSeconds: timeoutOf(request) }, options);
  } finally {
    await vm.close();
  }
}
