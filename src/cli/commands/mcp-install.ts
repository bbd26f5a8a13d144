import type { Command } from "commander";
import { installedEntries, planInstall } from "../../core/index.js";
import { showAndApply } from "../mcp-change.js";
import { ownScript, targetOf, targetOptions, unasked, type TargetFlags } from "../mcp-target.js";
import type { CommandContext } from "../program.js";

export function define(group: Command, context: CommandContext): void {
  targetOptions(group.command("install").summary("add pyro to a client's configuration").description("Shows what would change in the client's own configuration file, and changes it after a yes. All else in it stays as it is."))
    .option("--yes", "ask nobody")
    .addHelpText(
      "after",
      `
In the user's configuration the server is this Node and this pyro by absolute path, as clients that a desktop starts have no
PATH of a shell; in a project's, which others share, it is the pyro in PATH. Running it again changes only what is not up to date.

Examples:
  pyro mcp install claude-code
  pyro mcp install codex --yes
  pyro mcp install vscode --scope project`,
    )
    .action(async (client: string, flags: TargetFlags & { yes?: boolean }) => {
      const { output } = context;
      const change = await planInstall(targetOf(client, flags), ownScript());
      const { action, title, file, name } = change;
      if (action === "none") return output.line(`[mcp] result=up_to_date client=${client} name=${name} file=${file}`);
      if (!(await showAndApply(change, flags.yes, unasked("install", client, flags), context))) return;
      output.line(`[mcp] result=${action === "add" ? "added" : "updated"} client=${client} name=${name} file=${file}`);
      const problem = (await installedEntries(process.cwd())).find((each) => each.file === file && each.name === name)?.problem;
      if (problem !== undefined) output.line(`warning: ${title} could not start it here: ${problem}.`);
      output.line(`[mcp] message="${title} knows it from its next start on. Undo: pyro mcp uninstall ${client}"`);
    });
}
