import { type Command, Option, InvalidArgumentError } from "commander";
import { limits } from "../core/index.js";

/** A flag that takes a whole number, with its range and default in the help. The range itself is checked in core. */
export function limitOption(flags: string, description: string, name: "vcpuCount" | "memMib" | "diskMib" | "timeoutSeconds" | "ttlSeconds"): Option {
  const { min, max, default: fallback } = limits[name];
  return new Option(flags, `${description} (${min} to ${max}, default ${fallback})`).argParser((text: string) => {
    if (!/^-?[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`);
    return Number(text);
  });
}

/** The flags that say in what surroundings a command runs in the guest. */
export interface SurroundingFlags {
  env?: Record<string, string>;
  user?: string;
  workdir?: string;
}

export function surroundingOptions(command: Command): Command {
  return command
    .addOption(new Option("--env <NAME=VALUE>", "set a variable for the command; may be given again").argParser(addVariable))
    .option("--user <user>", "name, uid, name:group or uid:gid (default root)")
    .option("--workdir <path>", "directory in the guest (default the user's home)");
}

export function surroundingsOf({ env, user, workdir }: SurroundingFlags): { env?: Record<string, string>; user?: string; cwd?: string } {
  return { ...(env !== undefined && { env }), ...(user !== undefined && { user }), ...(workdir !== undefined && { cwd: workdir }) };
}

function addVariable(text: string, before: Record<string, string> = {}): Record<string, string> {
  const equals = text.indexOf("=");
  if (equals < 1) throw new InvalidArgumentError("It is NAME=VALUE.");
  return { ...before, [text.slice(0, equals)]: text.slice(equals + 1) };
}
