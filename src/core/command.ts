/** What is to be run, and the one check for it. */
import { PyroError } from "../base/error.js";

/** A string is run by the guest's login shell; an array is executed as it is, bytes for words that are not UTF-8. */
export type Command = string | readonly (string | Uint8Array)[];

/** Limits of Linux itself (a string of an argument list is at most 128 KiB) and of the channel (1 MiB for all of it). */
export function checkCommand(command: Command): void {
  if (typeof command !== "string" && !(Array.isArray(command) && command.every((word) => typeof word === "string" || word instanceof Uint8Array))) {
    throw new PyroError("INVALID_ARGUMENT", "The command is neither a string nor an array of strings.", { hint: 'Give a line for a shell ("git --version"), or words (["git", "--version"]).' });
  }
  const words = (typeof command === "string" ? [command] : command).map((word) => Buffer.from(word));
  if (words[0] === undefined || words[0].length === 0) throw new PyroError("INVALID_ARGUMENT", "The command is empty.", { hint: "Give a command: pyro run debian:12 -- git --version" });
  if (words.length > 4096) throw new PyroError("INVALID_ARGUMENT", `The command has ${words.length} words; at most 4096 are allowed.`);
  let total = 0;
  for (const word of words) {
    const bytes = word.length;
    if (word.includes(0)) throw new PyroError("INVALID_ARGUMENT", "The command contains a NUL byte; arguments can't.");
    if (bytes > 131_071) throw new PyroError("INVALID_ARGUMENT", `An argument has ${bytes} bytes; Linux allows 131071.`, { hint: "Hand large content over on standard input." });
    total += bytes + 5;
  }
  if (total > 1_000_000) throw new PyroError("INVALID_ARGUMENT", `The command has ${total} bytes; at most 1000000 are allowed.`, { hint: "Hand large content over on standard input." });
}
