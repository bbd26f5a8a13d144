/** Which client's configuration is meant. */
import { Argument, Option, type Command } from "commander";
import { clientNames, scopes, type Target } from "../core/index.js";

export interface TargetFlags {
  scope?: (typeof scopes)[number];
  name?: string;
}

/** The client's name is checked in core, which knows the nearest one; here it is what Tab offers. */
export function targetOptions(command: Command): Command {
  const client = new Argument("<client>", "whose configuration");
  client.argChoices = [...clientNames];
  return command
    .addArgument(client)
    .addOption(new Option("--scope <scope>", "user: in all projects; project: in a file of the current directory, to be shared (default user)").choices(scopes))
    .option("--name <name>", "what the server is called there (default pyro)");
}

export function targetOf(client: string, { scope, name }: TargetFlags): Target {
  return { client, directory: process.cwd(), ...(scope !== undefined && { scope }), ...(name !== undefined && { name }) };
}

/** The command line that asks nobody. */
export function unasked(verb: string, client: string, { scope, name }: TargetFlags): string {
  return `pyro mcp ${verb} ${client}${scope === undefined ? "" : ` --scope ${scope}`}${name === undefined ? "" : ` --name ${name}`} --yes`;
}

/** The name that this program was started by. */
export function ownScript(): string {
  return process.argv[1]!;
}
