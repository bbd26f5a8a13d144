/** The group `mcp`. A client starts it for every session, so only the asked subcommand is loaded. */
import type { Command } from "commander";
import type { CommandContext } from "../program.js";

interface SubcommandModule {
  define(group: Command, context: CommandContext): void;
}

/** In the order of the help. */
const subcommands: Record<string, { summary: string; load: () => Promise<SubcommandModule> }> = {
  serve: { summary: "serve one client over standard input and output, or many over HTTP", load: () => import("./mcp-serve.js") },
  install: { summary: "add pyro to a client's configuration", load: () => import("./mcp-install.js") },
  uninstall: { summary: "take pyro out of a client's configuration", load: () => import("./mcp-uninstall.js") },
  "print-config": { summary: "print the piece of configuration for a client", load: () => import("./mcp-print-config.js") },
};

export async function define(program: Command, context: CommandContext, [asked]: readonly string[]): Promise<void> {
  const group = program
    .command("mcp")
    .summary("serve VMs to coding agents, and tell their clients so")
    .description("VMs for coding agents over MCP, the Model Context Protocol.")
    .addHelpText(
      "after",
      `
Examples:
  pyro mcp serve
  pyro mcp install claude-code
  pyro mcp install cursor --scope project
  pyro mcp uninstall claude-code`,
    );
  for (const [name, { summary, load }] of Object.entries(subcommands)) {
    if (name === asked) (await load()).define(group, context);
    else group.command(name).summary(summary).description(summary);
  }
}
