import type { Command as Program } from "commander";
import { limits, runInVm, type ExecResult, type NetworkRequest, type Phase, type RunRequest } from "../../core/index.js";
import { exactWords } from "../exact-words.js";
import { limitOption, networkOptions, splitNetwork, surroundingOptions, surroundingsOf, type NetworkFlags, type SurroundingFlags } from "../options.js";
import { phaseLine, publishedLines, refusalLines, warningLine } from "../phases.js";
import type { CommandContext } from "../program.js";
import { inputOf, terminalOptions, terminalVariables, type TerminalFlags } from "../terminal.js";

/** The flags are the request's own fields. */
type RunFlags = Omit<RunRequest, "environment" | "command" | "entrypoint" | "cwd" | keyof NetworkRequest> & NetworkFlags & SurroundingFlags & TerminalFlags & { entrypoint?: string; json?: boolean; quiet?: boolean };

export function define(program: Program, context: CommandContext): void {
  const command = program
    .command("run")
    .summary("run one command in a VM of its own")
    .description("Boots a VM from ENVIRONMENT, runs COMMAND in it, prints its output and leaves no trace.")
    .usage("ENVIRONMENT [flags] [--] COMMAND [ARG...]")
    .argument("<environment>", "name of an environment, see `pyro env list`; or an image, see `pyro env pull --help`")
    .argument("[command...]", "executed as it is, without a shell; an image's own when left out; flags end at its first word")
    .addOption(limitOption("--vcpu-count <n>", "virtual processors", "vcpuCount"))
    .addOption(limitOption("--mem-mib <n>", "memory, MiB", "memMib"))
    .addOption(limitOption("--disk-mib <n>", "scratch disk, MiB, sparse", "diskMib"))
    .addOption(limitOption("--timeout-seconds <n>", "for the command; then it is killed with all it started, status 124", "timeoutSeconds"))
    .addOption(limitOption("--ttl-seconds <n>", "for the VM, whatever happens to pyro", "ttlSeconds"));
  networkOptions(terminalOptions(surroundingOptions(command).option("--entrypoint <program>", "instead of the image's own entrypoint; empty for none")))
    .option("--audit-file <file>", "what the guest asks of the network, a line of JSON each")
    .option("--allow-host-compat", "run on the host, NOT ISOLATED, if no VM can be had")
    .option("--json", "print one JSON object instead of streaming the output")
    .option("--quiet", "print nothing of pyro's own")
    .addHelpText(
      "after",
      `
Standard input reaches the command when it is not a terminal, or with -i. Exit status: the command's own; 124 timed out;
125 pyro failed; 126 not executable; 127 not found; 128+n ended by signal n. The first Ctrl-C goes to the command, the second
ends the VM. With -t every key is the command's, Ctrl-C and Ctrl-Z included, and unless --timeout-seconds or --ttl-seconds say
less the session may take a day.

Examples:
  pyro run debian:12 -- git --version
  pyro run -it debian:12 -- bash
  pyro run debian:12 --json -- sh -c 'echo out; exit 7'
  pyro run --allow-host '*.debian.org:80' debian:12 -- apt-get update
  tar -c src | pyro run debian:12-build --mem-mib 2048 --timeout-seconds 300 -- sh -c 'cd /tmp && tar -x && make -C src'`,
    )
    .action(async (environment: string, _words: string[], flags: RunFlags) => {
      context.exitStatus = await run(environment, context.guestCommand, flags, context);
    });
}

async function run(environment: string, command: readonly string[], flags: RunFlags, context: CommandContext): Promise<number> {
  const { output, interrupts } = context;
  const ownLines = flags.json !== true && flags.quiet !== true;
  const onPhase = (phase: Phase) => {
    if (ownLines) phaseLine(output, "run", environment, phase);
    else if (flags.quiet !== true) publishedLines(output, "run", phase);
    if (flags.json !== true) warningLine(output, phase);
  };
  const { rest, request: network } = splitNetwork(flags);
  const { json, quiet: _quiet, interactive: _interactive, tty: _tty, env, user, workdir, entrypoint, ...sizes } = rest;
  const request = { ...sizes, ...network, ...(command.length > 0 && { command: exactWords(command) }), ...(entrypoint !== undefined && { entrypoint: entrypoint === "" ? [] : [entrypoint] }), ...surroundingsOf({ env: { ...terminalVariables(flags), ...env }, ...(user && { user }), ...(workdir && { workdir }) }) };
  const result = await runInVm(
    { environment, ...request },
    {
      signal: AbortSignal.any([interrupts.signal, output.lost]),
      onPhase,
      leaving: true,
      ...(ownLines && { onRefused: refusalLines(output, "run") }),
      // Until the command runs, Ctrl-C ends everything; from then on the first one is the command's.
      onStarted: (sendSignal) => interrupts.handFirstTo(() => sendSignal(2)),
      ...inputOf(flags, output),
      // What streams need not be kept as well.
      ...(json ? {} : { stdout: output.guestStdout, stderr: output.guestStderr, captureBytes: limits.captureBytes.min }),
    },
  );
  if (json) output.json(result);
  else if (ownLines) output.line(summaryLine("run", result));
  return result.timedOut ? 124 : result.exitCode;
}

/** The last line of our own. */
export function summaryLine(verb: "run" | "exec" | "build", result: ExecResult): string {
  const timedOut = result.timedOut ? " timed_out=true" : "";
  return `[${verb}] environment=${result.environment} execution_mode=${result.executionMode} exit_code=${result.exitCode} duration_ms=${result.durationMs}${timedOut}`;
}
