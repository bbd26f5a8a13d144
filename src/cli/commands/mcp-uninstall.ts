import type { Command } from "commander";
import { planUninstall } from "../../core/index.js";
import { showAndApply } from "../mcp-change.js";
import { targetOf, targetOptions, unasked, type TargetFlags } from "../mcp-target.js";
import type { CommandContext } from "../program.js";

export function define(group: Command, context: CommandContext): void {
  targetOptions(group.command("uninstall").summary("take pyro out of a client's configuration").description("Shows what would change in the client's own configuration file, and changes it after a yes. What `pyro mcp install` added is taken out to the byte."))
    .option("--yes", "ask nobody")
    .addHelpText(
      "after",
      `
Examples:
  pyro mcp uninstall claude-code
  pyro mcp uninstall cursor --scope project --yes`,
    )
    .action(async (client: string, flags: TargetFlags & { yes?: boolean }) => {
      const { output } = context;
      const change = await planUninstall(targetOf(client, flags));
      const { action, file, name } = change;
      if (action === "none") return output.line(`[mcp] result=not_there client=${client} name=${name} file=${file}`);
      if (!(await showAndApply(change, flags.yes, unasked("uninstall", client, flags), context))) return;
      output.line(`[mcp] result=removed client=${client} name=${name} file=${file}`);
    });
}
