/**
 * What a shell offers for a half-typed command line. All of it comes from the commands' definitions, which are loaded as for running them, and from
 * what is on this disk; nothing is fetched, started or cleared away.
 */
import type { Argument, Command } from "commander";
import { flagsWithValue, ownArguments } from "./words.js";

export interface Candidate {
  word: string;
  /** One line. */
  description: string;
}

/** Names for an argument of a command: environments, VMs. */
export type Names = (argument: string, command: Command) => Promise<readonly Candidate[]>;

/** What `word`, behind the words `before` (without `pyro`), may become. Empty where anything goes, as behind `--`. */
export async function candidates(program: Command, before: readonly string[], word: string, names: Names): Promise<Candidate[]> {
  const place = walk(program, before);
  if (place === undefined) return [];
  const { command, given, takesValue, isHelp } = place;
  if (takesValue || (word.startsWith("-") && isHelp)) return [];
  const all = word.startsWith("-") ? flagsOf(command, before) : given === 0 && command.commands.length > 0 ? commandsOf(command) : isHelp ? [] : await valuesOf(argumentAt(command, given), command, names);
  return all.filter((each) => each.word.startsWith(word));
}

interface Place {
  command: Command;
  /** How many arguments are there already. */
  given: number;
  /** The word before is a flag that this one is the value of. */
  takesValue: boolean;
  /** Behind `help`: only commands. */
  isHelp: boolean;
}

/** Undefined behind `--`, among the words of a guest's command, and where a word is no command. */
function walk(program: Command, before: readonly string[]): Place | undefined {
  const place: Place = { command: program, given: 0, takesValue: false, isHelp: false };
  for (const word of before) {
    if (place.takesValue) {
      place.takesValue = false;
    } else if (word === "--") {
      return undefined;
    } else if (word.startsWith("-") && word !== "-") {
      place.takesValue = flagsWithValue(place.command).includes(word);
    } else if (word === "help" && place.command.commands.length > 0 && !place.isHelp) {
      place.isHelp = true;
    } else if (place.command.commands.length > 0) {
      const next = place.command.commands.find((each) => each.name() === word);
      if (next === undefined) return undefined;
      place.command = next;
    } else if (++place.given > ownArguments(place.command)) {
      return undefined;
    }
  }
  return place;
}

/** Without switches that are on already. */
function flagsOf(command: Command, before: readonly string[]): Candidate[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .filter((each) => each.long !== undefined && (each.required || ![each.long, each.short].some((flag) => flag !== undefined && before.includes(flag))))
    .map((each) => ({ word: each.long!, description: each.description }));
}

function commandsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map((each) => ({ word: each.name(), description: each.summary() || each.description() }));
}

function argumentAt(command: Command, index: number): Argument | undefined {
  const last = command.registeredArguments.at(-1);
  return command.registeredArguments[index] ?? (last?.variadic ? last : undefined);
}

async function valuesOf(argument: Argument | undefined, command: Command, names: Names): Promise<readonly Candidate[]> {
  if (argument === undefined) return [];
  return argument.argChoices?.map((word) => ({ word, description: "" })) ?? names(argument.name(), command);
}
