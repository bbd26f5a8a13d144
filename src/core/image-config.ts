/** What an image says of how its commands are run, as `docker run` and `docker exec` take it. */
import { PyroError } from "../base/error.js";
import type { ImageConfig } from "../environments/index.js";
import type { Command } from "./command.js";
import type { Surroundings } from "./exec.js";

/**
 * What is run when a VM is made for one command. Words go to the image's entrypoint, and where there are none its own command does; another entrypoint
 * leaves neither. A line for the shell is run by the shell, whatever the image says. Throws INVALID_ARGUMENT where nothing is left to run.
 */
export function commandOf({ command, entrypoint }: { command?: Command | undefined; entrypoint?: readonly string[] | undefined }, config: ImageConfig = {}, environment: string): Command {
  if (typeof command === "string") return command;
  const words = [...(entrypoint ?? config.entrypoint ?? []), ...(command ?? (entrypoint === undefined ? (config.cmd ?? []) : []))];
  if (words.length === 0) throw new PyroError("INVALID_ARGUMENT", "There is no command to run.", { hint: `pyro run ${environment} -- COMMAND` });
  return words;
}

/** The image's variables, user and directory, where the request says nothing else. */
export function inImage<T extends Surroundings & { command: Command }>(request: T, config: ImageConfig | undefined): T {
  if (config === undefined) return request;
  const user = request.user ?? config.user;
  // A login shell takes the search path out of /etc/profile, and with it what the image has put where nobody else looks.
  const path = request.env?.["PATH"] ?? config.env?.["PATH"];
  const command = typeof request.command === "string" && path !== undefined ? `PATH='${path.replaceAll("'", `'\\''`)}'; ${request.command}` : request.command;
  return { ...request, command, env: { ...config.env, ...request.env }, cwd: request.cwd ?? config.workingDir ?? "/", ...(user !== undefined && { user }) };
}
