/** Our own terminal, lent to a command in a guest: raw, so that every key is the guest's, and put back whatever happens. */
import { fstatSync } from "node:fs";
import type { Readable } from "node:stream";
import type { Command } from "commander";
import { sleep } from "../base/deadline.js";
import { PyroError, toPyroError } from "../base/error.js";
import { log } from "../base/log.js";
import { settings } from "../base/settings.js";
import { inForeground, rawTerminal, type RawTerminal } from "../base/terminal.js";
import type { CommandTerminal } from "../core/index.js";
import type { Output } from "./render.js";

export interface TerminalFlags {
  interactive?: boolean;
  tty?: boolean;
}

export function terminalOptions(command: Command): Command {
  return command
    .option("-i, --interactive", "hand standard input over although it is a terminal")
    .option("-t, --tty", "give the command a terminal, and this one to type on; nothing times out unless --timeout-seconds is given");
}

/** What a command reads and is typed on. Throws INVALID_ARGUMENT for flags that don't fit where we run. */
export function inputOf(flags: TerminalFlags & { json?: boolean; quiet?: boolean }, output: Output): { stdin?: Readable; terminal?: CommandTerminal } {
  if (!flags.tty) return flags.interactive || process.stdin.isTTY !== true ? { stdin: standardInput() } : {};
  if (flags.json) throw new PyroError("INVALID_ARGUMENT", "A command with a terminal (-t) prints to it, and --json prints nothing but its result.", { hint: "Leave out -t or --json." });
  if (process.stdin.isTTY !== true) throw new PyroError("INVALID_ARGUMENT", "Standard input is no terminal, so there is none to give to the command.", { hint: "Leave out -t: what is on standard input is handed over without it." });
  return { stdin: process.stdin, terminal: ownTerminal(output, flags.quiet === true) };
}

/** The variables that a command with a terminal is told. */
export function terminalVariables({ tty }: TerminalFlags): Record<string, string> {
  const type = settings.terminalType();
  return tty && type !== undefined ? { TERM: type } : {};
}

/** Node takes a directory for an input that is empty. */
export function standardInput(): NodeJS.ReadStream {
  if (fstatSync(0).isDirectory()) throw new PyroError("INVALID_ARGUMENT", "Standard input is a directory.", { hint: "Give </dev/null where the command needs none." });
  return process.stdin;
}

function ownTerminal(output: Output, quiet: boolean): CommandTerminal {
  let raw: RawTerminal | undefined;
  let resized = () => {};
  let changes: Promise<void> = Promise.resolve();
  /** One change of the modes after the other. */
  const change = (step: () => Promise<void>) => {
    const done = changes.then(step);
    changes = done.catch(() => {});
    return done;
  };
  const restore = async () => {
    const before = raw;
    raw = undefined;
    await before?.restore();
  };
  const signals = {
    SIGWINCH: () => resized(),
    // From outside: what is typed, Ctrl-Z included, is the guest's. A stop by SIGTSTP would not come about in an orphaned process group.
    SIGTSTP: () => void change(async () => {
      await restore();
      process.kill(process.pid, "SIGSTOP");
    }),
    SIGCONT: () => void change(async () => {
      await restore(); // stopped by a signal that can't be caught, we still had it
      // Continued in the background, the terminal is somebody else's. The next key for us stops us again (SIGTTIN).
      if (await inForeground()) raw = await rawTerminal();
      resized();
    }).catch((error: unknown) => log("the terminal is not raw", { why: toPyroError(error).message })),
  };
  return {
    async open(resize) {
      await waitForForeground();
      resized = () => resize(output.windowSize());
      for (const [name, listener] of Object.entries(signals)) process.on(name, listener);
      await change(async () => void (raw = await rawTerminal()));
      return output.windowSize();
    },
    async close(result) {
      for (const [name, listener] of Object.entries(signals)) process.off(name, listener);
      await change(restore);
      // What comes next is ours: an error, or the summary.
      if (result === undefined || (!quiet && result.stdout !== "" && !result.stdout.endsWith("\n"))) output.line("");
    },
  };
}

/** A job in the background stops as one that reads from the terminal does, until its shell gives it the terminal. */
async function waitForForeground(): Promise<void> {
  if (await inForeground()) return;
  process.kill(0, "SIGTTIN");
  await sleep(100); // the stop comes about in this time, and takes as long as it takes
  if (!(await inForeground())) throw new PyroError("INVALID_STATE", "The terminal belongs to another job.", { hint: "Start pyro in the foreground, or leave out -t." });
}
