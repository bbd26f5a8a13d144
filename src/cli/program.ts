/** The command line: which word is which command. Only the code of the command at hand is loaded. */
import { Command, CommanderError } from "commander";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PyroError, toPyroError } from "../base/error.js";
import { setLogSink } from "../base/log.js";
import { nearest } from "../base/nearest.js";
import { packageRoot } from "../base/paths.js";
import { settings } from "../base/settings.js";
import type { Faces } from "./faces.js";
import { Interrupted, watchInterrupts, type Interrupts } from "./interrupts.js";
import { createOutput, debugLine, OutputLost, type Output } from "./render.js";

export interface CommandContext {
  readonly output: Output;
  readonly interrupts: Interrupts;
  /** The words of `run` that belong to the guest. */
  readonly guestCommand: readonly string[];
  readonly faces: Faces;
  exitStatus: number;
}

interface CommandModule {
  define(program: Command, context: CommandContext): void;
}

/** Every command, in the order of the help. A new verb is a line here and a file in `commands/`. */
const commands: Record<string, { summary: string; load: () => Promise<CommandModule> }> = {
  run: { summary: "run one command in a VM of its own", load: () => import("./commands/run.js") },
  env: { summary: "list, pull, warm, inspect and prune environments", load: () => import("./commands/env.js") },
  vm: { summary: "create, use and end VMs that outlive a command", load: () => import("./commands/vm.js") },
  cp: { summary: "copy files into a VM and out of it", load: () => import("./commands/cp.js") },
  mcp: { summary: "serve agents over the Model Context Protocol", load: () => import("./commands/mcp.js") },
  doctor: { summary: "find out what this host can do, and what it lacks", load: () => import("./commands/doctor.js") },
};

/** Runs the command line `args` (without node and script) to its end, writes out what it has to say, and returns the exit status. */
export async function runCommandLine(args: readonly string[], faces: Faces): Promise<number> {
  if (settings.debugLog()) setLogSink(debugLine);
  const output = createOutput();
  const interrupts = watchInterrupts();
  const status = await runCommand(args, faces, output, interrupts);
  await output.flush(interrupts.signal);
  const lost: unknown = output.lost.reason;
  if (!(lost instanceof OutputLost)) return status;
  if (lost.readerGone) return 141;
  output.error(lost, false);
  await output.flush(interrupts.signal);
  return failureStatus(args, false);
}

async function runCommand(args: readonly string[], faces: Faces, output: Output, interrupts: Interrupts): Promise<number> {
  const asked = wantedCommand(args);
  const split = takesGuestCommand(args) ? splitGuestCommand(args) : { own: [...args], guest: [] };
  const context: CommandContext = { output, interrupts, guestCommand: split.guest, faces, exitStatus: 0 };
  try {
    if (args[0] === "help" && asked !== undefined && !(asked in commands)) throw new CommanderError(1, "commander.unknownCommand", `unknown command '${asked}'`);
    const program = await buildProgram(asked, context);
    if (asked !== undefined && asked in commands && args[0] !== "help") await clearAway(asked, interrupts.signal);
    await program.parseAsync(split.own, { from: "user" });
    return context.exitStatus;
  } catch (error) {
    if (output.lost.aborted) return failureStatus(args, false); // told by whoever called us
    if (error instanceof CommanderError && error.exitCode === 0) return 0; // help or version were shown
    if (error instanceof CommanderError && error.code === "commander.help") return 2; // help was shown, and not asked for
    const usage = error instanceof CommanderError;
    // Whatever broke because we were told to end, that we were told is the cause.
    const interrupted: unknown = interrupts.signal.reason;
    const failure = interrupted instanceof Interrupted ? interrupted : usage ? usageError(error, args) : toPyroError(error);
    output.error(failure, split.own.includes("--json"));
    if (failure instanceof Interrupted) return failure.exitStatus;
    return failureStatus(args, usage || failure.code === "INVALID_ARGUMENT");
  }
}

/** VMs that expired or lost their owner end with whatever command comes next. `vm` waits for it, as it is about to say what is there. */
async function clearAway(asked: string, signal: AbortSignal): Promise<void> {
  if (asked === "mcp") return; // clients start servers just to look at them: that touches nothing
  const { reapExpired } = await import("../core/index.js");
  const done = reapExpired({ signal });
  if (asked === "vm") await done;
  else done.catch(() => {}); // interrupted anywhere, it is gone on with by the next one
}

/** What runs a guest's command keeps all low numbers for it. */
function failureStatus(args: readonly string[], usage: boolean): number {
  if (takesGuestCommand(args)) return 125;
  return usage ? 2 : 1;
}

/** `run` and `vm exec`. */
function takesGuestCommand(args: readonly string[]): boolean {
  const [first, second] = wordsOf(args);
  return first === "run" || (first === "vm" && second === "exec");
}

function wordsOf(args: readonly string[]): string[] {
  return args.filter((each) => !each.startsWith("-"));
}

/** The first word that is no flag; behind `help` the one that follows it. */
function wantedCommand(args: readonly string[]): string | undefined {
  const words = wordsOf(args);
  return words[0] === "help" ? words[1] : words[0];
}

/**
 * `run`'s own words and the guest's. Flags may stand before and after the environment; they end at the first word behind it
 * that is no flag, or at `--`. What follows is the guest's, untouched.
 */
export function splitGuestCommand(args: readonly string[]): { own: string[]; guest: string[] } {
  const own: string[] = [];
  let words = 0;
  const ownWords = wordsOf(args)[0] === "vm" ? 3 : 2; // `run` and the environment, or `vm exec` and the VM
  for (let index = 0; index < args.length; index++) {
    const word = args[index]!;
    if (word === "--") return { own, guest: args.slice(index + 1) };
    if (word.startsWith("-") && word !== "-") {
      own.push(word);
      if (flagsWithValue.has(word) && index + 1 < args.length) own.push(args[++index]!);
      continue;
    }
    // `pyro help run` has two words of its own and no guest's.
    if (++words > ownWords) return { own, guest: args.slice(index) };
    own.push(word);
  }
  return { own, guest: [] };
}

const flagsWithValue = new Set(["--vcpu-count", "--mem-mib", "--disk-mib", "--timeout-seconds", "--ttl-seconds", "--env", "--user", "--workdir"]);

async function buildProgram(asked: string | undefined, context: CommandContext): Promise<Command> {
  const { version } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as { version: string };
  const program = new Command("pyro")
    .description("Commands that nobody has read, in a real virtual machine.")
    .version(version, "--version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .configureOutput({ writeOut: (text) => context.output.result(text), writeErr: (text) => context.output.line(text.trimEnd()), outputError: () => {} }) // errors are shown by whoever catches them
    .showSuggestionAfterError(false)
    .exitOverride()
    .addHelpText("after", "\nExample:\n  pyro run debian:12 -- git --version");
  for (const [name, { summary, load }] of Object.entries(commands)) {
    if (name === asked) (await load()).define(program, context);
    else program.command(name).summary(summary).description(summary).helpOption(false);
  }
  inherit(program);
  if (asked === undefined) {
    program.action(() => {
      context.output.result(program.helpInformation());
      context.exitStatus = 2;
    });
  }
  return program;
}

/** Settings that commander hands to commands only when it makes them itself. */
function inherit(command: Command): void {
  for (const each of command.commands) {
    each.copyInheritedSettings(command).exitOverride();
    inherit(each);
  }
}

/** Commander's complaint as ours: what is wrong, the nearest thing that is right, and where to read on. */
function usageError(error: CommanderError, args: readonly string[]): PyroError {
  const message = error.message.replace(/^error: /, "");
  const place = wantedCommand(args);
  const known = place !== undefined && place in commands;
  const help = known ? `pyro help ${place}` : "pyro help";
  const word = /'([^']+)'/.exec(message)?.[1];
  const candidates = error.code === "commander.unknownOption" ? flags : error.code !== "commander.unknownCommand" ? [] : known ? (subcommands[place] ?? []) : Object.keys(commands);
  const near = word === undefined || candidates.includes(word) ? [] : nearest(word, candidates);
  const suggestion = near.length === 0 ? "" : `Did you mean ${near.join(" or ")}? `;
  return new PyroError("INVALID_ARGUMENT", `${message[0]!.toUpperCase()}${message.slice(1)}${message.endsWith(".") ? "" : "."}`, { hint: `${suggestion}See \`${help}\`.`, cause: error });
}

const flags = [...flagsWithValue, "--network", "--allow-host-compat", "--json", "--quiet", "--force", "--start", "--rm", "--archive", "--parents", "--http", "--allow-remote", "--token-file", "--tools", "--max-vms", "--help", "--version"];
const subcommands: Record<string, readonly string[]> = {
  env: ["list", "pull", "warm", "inspect", "prune"],
  vm: ["create", "start", "exec", "stop", "delete", "status", "list", "logs", "network", "reap"],
  mcp: ["serve"],
};
