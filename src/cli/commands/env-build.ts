import { InvalidArgumentError, Option, type Command as Program } from "commander";
import { PyroError } from "../../base/error.js";
import { buildEnvironment, limits, type Phase } from "../../core/index.js";
import { exactWords } from "../exact-words.js";
import { limitOption, policyOf, policyOptions, surroundingOptions, surroundingsOf, wholeNumber, type PolicyFlags, type SurroundingFlags } from "../options.js";
import { phaseLine, refusalLines } from "../phases.js";
import type { CommandContext } from "../program.js";
import { formatBytes, formatTable } from "../render.js";
import { summaryLine } from "./run.js";

interface BuildFlags extends SurroundingFlags, PolicyFlags {
  from?: string;
  script?: string;
  copy?: { source: string; destination: string }[];
  vcpuCount?: number;
  memMib?: number;
  diskMib?: number;
  timeoutSeconds?: number;
  json?: boolean;
  quiet?: boolean;
}

export function defineBuild(env: Program, context: CommandContext): void {
  const command = env
    .command("build")
    .description("run a command in a VM over an environment, and keep what it changed as a new one")
    .usage("NAME --from ENVIRONMENT [flags] [--] [COMMAND [ARG...]]")
    .argument("<name>", "what it is to be called")
    .argument("[command...]", "executed as it is, without a shell and without an image's entrypoint; with --script its arguments")
    .option("--from <environment>", "what is built upon; a name, see `pyro env list`, or an image")
    .option("--script <file>", "a file of the host's that is run in the VM instead, by /bin/sh where it does not say by what")
    .addOption(new Option("--copy <source:destination>", "a file or directory of the host's that is copied in before; may be given again").argParser(addCopy))
    .addOption(limitOption("--vcpu-count <n>", "virtual processors", "vcpuCount"))
    .addOption(limitOption("--mem-mib <n>", "memory, MiB", "memMib"))
    .addOption(limitOption("--disk-mib <n>", "scratch disk, MiB, sparse", "diskMib"))
    .addOption(new Option("--timeout-seconds <n>", `for the command (${limits.timeoutSeconds.min} to ${limits.timeoutSeconds.max}, default 3600)`).argParser((text) => wholeNumber(text)));
  policyOptions(surroundingOptions(command))
    .option("--json", "print one JSON object instead of streaming the output")
    .option("--quiet", "print nothing of pyro's own")
    .addHelpText(
      "after",
      `
A command that fails leaves nothing, and its exit status is pyro's; 124, 125, 126, 127 and 128+n are as of \`pyro run\`.

Examples:
  pyro env build tools --from debian:12 --copy ./debs:/tmp/debs -- sh -c 'dpkg -i /tmp/debs/*.deb && rm -r /tmp/debs'
  pyro env build perl --from debian:12 --allow-host deb.debian.org --env DEBIAN_FRONTEND=noninteractive -- sh -c 'apt-get update && apt-get install -y libjson-perl'
  pyro env build ci --from docker.io/library/python:3.12-slim --copy ./wheels:/opt/wheels --script setup.sh
  pyro run ci -- python -V`,
    )
    .action(async (name: string, _words: string[], flags: BuildFlags) => {
      context.exitStatus = await build(name, flags, context);
    });
}

async function build(name: string, flags: BuildFlags, { output, interrupts, guestCommand }: CommandContext): Promise<number> {
  const { from, script, copy, json, quiet, env, user, workdir, network, allowHost, denyHost, allowNet, ...sizes } = flags;
  if (from === undefined) throw new PyroError("INVALID_ARGUMENT", "It is not said what is built upon.", { hint: `pyro env build ${name} --from debian:12 -- COMMAND` });
  const ownLines = json !== true && quiet !== true;
  const request = {
    name,
    from,
    ...sizes,
    ...policyOf({ ...(network !== undefined && { network }), ...(allowHost && { allowHost }), ...(denyHost && { denyHost }), ...(allowNet && { allowNet }) }),
    ...(script !== undefined && { script }),
    ...(copy && { copies: copy }),
    ...(guestCommand.length > 0 && { command: exactWords(guestCommand) }),
    ...surroundingsOf({ ...(env && { env }), ...(user !== undefined && { user }), ...(workdir !== undefined && { workdir }) }),
  };
  const { result, environment } = await buildEnvironment(request, {
    signal: AbortSignal.any([interrupts.signal, output.lost]),
    ...(ownLines && { onPhase: (phase: Phase) => phaseLine(output, "build", from, phase), onRefused: refusalLines(output, "build") }),
    ...(!json && { stdout: output.guestStdout, stderr: output.guestStderr, captureBytes: limits.captureBytes.min }),
  });
  const status = result?.timedOut ? 124 : (result?.exitCode ?? 0);
  if (json) {
    output.json({ ...(result && { result }), ...(environment && { environment }) });
    return status;
  }
  if (result !== undefined && ownLines) output.line(summaryLine("build", result));
  if (environment === undefined) {
    if (ownLines) output.line(`[build] phase=failed environment=${name} message="the command failed, so nothing is kept"`);
  } else if (ownLines) {
    output.line(`[build] phase=done environment=${name}`);
    output.line(formatTable([["name", environment.name], ["digest", environment.digest ?? "-"], ["size", formatBytes(environment.sizeBytes ?? 0)]]).trimEnd());
  }
  return status;
}

function addCopy(text: string, before: { source: string; destination: string }[] = []): { source: string; destination: string }[] {
  const colon = text.lastIndexOf(":");
  const [source, destination] = [text.slice(0, colon), text.slice(colon + 1)];
  if (colon < 1 || !destination.startsWith("/")) throw new InvalidArgumentError("It is SOURCE:DESTINATION, the destination a whole path in the VM.");
  return [...before, { source, destination }];
}
