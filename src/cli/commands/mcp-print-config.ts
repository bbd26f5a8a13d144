import type { Command } from "commander";
import { configPiece } from "../../core/index.js";
import { ownScript, targetOf, targetOptions, type TargetFlags } from "../mcp-target.js";
import type { CommandContext } from "../program.js";

export function define(group: Command, context: CommandContext): void {
  targetOptions(group.command("print-config").summary("print the piece of configuration for a client").description("Prints what `pyro mcp install` would add, to be pasted by hand, and on standard error where to."))
    .addHelpText(
      "after",
      `
Examples:
  pyro mcp print-config claude-desktop
  pyro mcp print-config codex >>~/.codex/config.toml`,
    )
    .action(async (client: string, flags: TargetFlags) => {
      const { file, text } = await configPiece(targetOf(client, flags), ownScript());
      context.output.line(`[mcp] client=${client} file=${file}`);
      context.output.result(text);
    });
}
