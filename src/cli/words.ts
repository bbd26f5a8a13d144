/** Which words of a command line are pyro's, and which the guest's; told from the commands' definitions. */
import type { Command } from "commander";

/**
 * Flags may stand before and after the environment (or the VM); they end at the first word behind it that is no flag, or at `--`. What follows is the
 * guest's, untouched.
 */
export function splitGuestCommand(program: Command, args: readonly string[]): { own: string[]; guest: string[] } {
  let command = program;
  let given = 0;
  for (let index = 0; index < args.length; index++) {
    const word = args[index]!;
    if (word === "--") return { own: args.slice(0, index), guest: args.slice(index + 1) };
    if (word.startsWith("-") && word !== "-") {
      if (flagsWithValue(command).includes(word)) index++;
    } else if (command.commands.length > 0) {
      command = command.commands.find((each) => each.name() === word) ?? command;
    } else if (++given > ownArguments(command)) {
      return { own: args.slice(0, index), guest: args.slice(index) };
    }
  }
  return { own: [...args], guest: [] };
}

/** The command that the words lead to, as far as they do. */
export function commandOf(program: Command, words: readonly string[]): Command {
  let command = program;
  for (const word of words) {
    const next = command.commands.find((each) => each.name() === word);
    if (next === undefined) break;
    command = next;
  }
  return command;
}

/** The flags of a command whose value is the next word. */
export function flagsWithValue(command: Command): string[] {
  return command.options.filter((each) => each.required).flatMap((each) => [each.long ?? [], each.short ?? []].flat());
}

/** How many arguments are pyro's own: those before a guest's command, all of other commands. */
export function ownArguments(command: Command): number {
  const own = command.registeredArguments.filter((each) => each.name() !== "command");
  return own.at(-1)?.variadic ? Infinity : own.length;
}
