/** The command line: which word is which command. Only the code of the command at hand is loaded. */
import { Command, CommanderError } from "commander";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PyroError, toPyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { log, setLogSink } from "../base/log.js";
import { nearest } from "../base/nearest.js";
import { packageRoot } from "../base/paths.js";
import { settings } from "../base/settings.js";
import type { Candidate } from "./complete.js";
import type { Faces } from "./faces.js";
import { Interrupted, watchInterrupts, type Interrupts } from "./interrupts.js";
import { createOutput, debugLine, OutputLost, type Output } from "./render.js";
import { commandOf, splitGuestCommand } from "./words.js";

export interface CommandContext {
  readonly output: Output;
  readonly interrupts: Interrupts;
  /** The words of `run` and `vm exec` that belong to the guest. */
  guestCommand: readonly string[];
  readonly faces: Faces;
  exitStatus: number;
}

interface CommandModule {
  /** `words` are those behind the command's own, for a group that loads only what is asked for. */
  define(program: Command, context: CommandContext, words: readonly string[]): void | Promise<void>;
}

/** Every command, in the order of the help. A new verb is a line here and a file in `commands/`. */
const commands: Record<string, { summary: string; hidden?: boolean; load: () => Promise<CommandModule> }> = {
  run: { summary: "run one command in a VM of its own", load: () => import("./commands/run.js") },
  env: { summary: "list, pull, build, warm, inspect and prune environments", load: () => import("./commands/env.js") },
  vm: { summary: "create, use and end VMs that outlive a command", load: () => import("./commands/vm.js") },
  cp: { summary: "copy files into a VM and out of it", load: () => import("./commands/cp.js") },
  mcp: { summary: "serve VMs to coding agents, and tell their clients so", load: () => import("./commands/mcp.js") },
  demo: { summary: "show what VMs are like here, in half a minute", load: () => import("./commands/demo.js") },
  completion: { summary: "print what makes a shell complete pyro's command line", load: () => import("./commands/completion.js") },
  doctor: { summary: "find out what this host can do, and what it lacks", load: () => import("./commands/doctor.js") },
  pipe: { summary: "answer requests of a program", hidden: true, load: () => import("./commands/pipe.js") },
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
  const words = wantedWords(args);
  const [asked] = words;
  const context: CommandContext = { output, interrupts, guestCommand: [], faces, exitStatus: 0 };
  if (args[0] === completing) return complete(args.slice(1), context);
  const program = await buildProgram(words, context);
  let own = [...args];
  try {
    if (args[0] === "help") return showHelp(program, wordsOf(args).slice(1));
    if (asked !== undefined && asked in commands && asked !== "completion") await clearAway(asked, interrupts.signal);
    if (takesGuestCommand(args)) ({ own, guest: context.guestCommand } = splitGuestCommand(program, args));
    await program.parseAsync(own, { from: "user" });
    return context.exitStatus;
  } catch (error) {
    if (output.lost.aborted) return failureStatus(args, false); // told by whoever called us
    if (error instanceof CommanderError && error.exitCode === 0) return 0; // help or version were shown
    if (error instanceof CommanderError && error.code === "commander.help") return 2; // help was shown, and not asked for
    const usage = error instanceof CommanderError;
    // Whatever broke because we were told to end, that we were told is the cause.
    const interrupted: unknown = interrupts.signal.reason;
    const failure = interrupted instanceof Interrupted ? interrupted : usage ? usageError(error, program, args) : toPyroError(error);
    output.error(failure, own.includes("--json"));
    if (failure instanceof Interrupted) return failure.exitStatus;
    return failureStatus(args, usage || failure.code === "INVALID_ARGUMENT");
  }
}

/** VMs that expired or lost their owner end with whatever command comes next, but for `completion`, which every new shell waits for. `vm` waits for it, as it is about to say what is there. */
async function clearAway(asked: string, signal: AbortSignal): Promise<void> {
  if (asked === "mcp") return; // clients start servers just to look at them: that touches nothing
  const { anyVms, reapExpired } = await import("../core/index.js");
  const reap = async () => {
    if (await anyVms()) await reapExpired({ signal });
  };
  if (asked === "vm") await reap();
  // Beside a command that takes long enough; broken off anywhere, it is gone on with by the next one.
  else setTimeout(() => void reap().catch(() => {}), 100).unref();
}

/** What runs a guest's command keeps all low numbers for it. */
function failureStatus(args: readonly string[], usage: boolean): number {
  if (takesGuestCommand(args)) return 125;
  return usage ? 2 : 1;
}

/** `run`, `vm exec` and `env build`. */
function takesGuestCommand(args: readonly string[]): boolean {
  const [first, second] = wordsOf(args);
  return first === "run" || (first === "vm" && second === "exec") || (first === "env" && second === "build");
}

function wordsOf(args: readonly string[]): string[] {
  return args.filter((each) => !each.startsWith("-"));
}

/** The words that are no flags, without a `help` before them: the first is the command. */
function wantedWords(args: readonly string[]): string[] {
  const words = wordsOf(args);
  return words[0] === "help" ? words.slice(1) : words;
}

/** What the scripts of `completion` call: prints a candidate a line, and never an error, as it is read in the middle of a line that somebody types. */
const completing = "__complete";

async function complete(words: readonly string[], context: CommandContext): Promise<number> {
  const before = words.slice(0, -1);
  try {
    const { candidates } = await import("./complete.js");
    const program = await buildProgram(wantedWords(before), context);
    const found = await candidates(program, before, words.at(-1) ?? "", namesOf);
    context.output.result(found.map(({ word, description }) => `${harmlessLine(word, 1000)}\t${harmlessLine(description, 200)}\n`).join(""));
  } catch (error) {
    log("nothing to complete", { why: toPyroError(error).message });
  }
  return 0;
}

/** What is on this disk for an argument of that name. */
async function namesOf(argument: string, command: Command): Promise<Candidate[]> {
  if (argument === "environment") return (await import("../core/index.js")).environmentNames().then((all) => all.map(({ name, description }) => ({ word: name, description })));
  if (argument !== "vm-id") return [];
  const vms = await (await import("../core/index.js")).listVmsFor(command.name());
  return vms.map(({ vmId, state, environment }) => ({ word: vmId, description: `${state}, ${environment}` }));
}

/** `pyro help` and the words behind it. */
function showHelp(program: Command, words: readonly string[]): number {
  const command = commandOf(program, words);
  const unknown = words.find((word) => command.commands.length > 0 && word !== "help" && !isOnTheWay(command, word));
  if (unknown !== undefined) throw new CommanderError(1, "commander.unknownCommand", `unknown command '${unknown}'`);
  command.outputHelp();
  return 0;
}

function isOnTheWay(command: Command, word: string): boolean {
  return command.name() === word || (command.parent !== null && isOnTheWay(command.parent, word));
}

async function buildProgram([asked, ...words]: readonly string[], context: CommandContext): Promise<Command> {
  const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string };
  const program = new Command("pyro")
    .description("Commands that nobody has read, in a real virtual machine.")
    .version(version, "--version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .configureOutput({ writeOut: (text) => context.output.result(text), writeErr: (text) => context.output.line(text.trimEnd()), outputError: () => {} }) // errors are shown by whoever catches them
    .showSuggestionAfterError(false)
    .exitOverride()
    .addHelpText("after", "\nExample:\n  pyro run debian:12 -- git --version");
  for (const [name, { summary, hidden = false, load }] of Object.entries(commands)) {
    if (name === asked) await (await load()).define(program, context, words);
    else program.command(name, { hidden }).summary(summary).description(summary).helpOption(false);
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
function usageError(error: CommanderError, program: Command, args: readonly string[]): PyroError {
  const words = wordsOf(args);
  const command = commandOf(program, words[0] === "help" ? words.slice(1) : words);
  const help = command.createHelp();
  // A group that does something by itself (`demo`) takes no arguments: a word behind it was meant to be one of its commands.
  const surplus = error.code === "commander.excessArguments" && command.commands.length > 0 ? words.find((each) => !isOnTheWay(command, each)) : undefined;
  const message = surplus === undefined ? error.message.replace(/^error: /, "") : `unknown command '${surplus}'`;
  const candidates = error.code === "commander.unknownOption" ? help.visibleOptions(command).flatMap((each) => each.long ?? []) : error.code === "commander.unknownCommand" || surplus !== undefined ? help.visibleCommands(command).map((each) => each.name()) : [];
  const word = /'([^']+)'/.exec(message)?.[1];
  const near = word === undefined || candidates.includes(word) ? [] : nearest(word, candidates);
  const suggestion = near.length === 0 ? "" : `Did you mean ${near.join(" or ")}? `;
  return new PyroError("INVALID_ARGUMENT", `${message[0]!.toUpperCase()}${message.slice(1)}${message.endsWith(".") ? "" : "."}`, { hint: `${suggestion}See \`${pathOf(command, "pyro help")}\`.`, cause: error });
}

/** `pyro help vm exec` */
function pathOf(command: Command, start: string): string {
  return command.parent === null ? start : `${pathOf(command.parent, start)} ${command.name()}`;
}
