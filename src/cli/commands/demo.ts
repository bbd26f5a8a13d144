import type { Command } from "commander";
import type { CommandContext } from "../program.js";

export async function define(program: Command, context: CommandContext, [asked]: readonly string[]): Promise<void> {
  const demo = program
    .command("demo")
    .summary("show what VMs are like here, in half a minute")
    .description("A tour on real VMs with timings measured as it goes: one command, isolation, forks, a destroyed VM, one that stays, and what an agent sees of it.")
    .addHelpText(
      "after",
      `
The tour goes to standard output, its last line to standard error: [demo] result=ok vms=10 duration_ms=…

Examples:
  pyro demo
  pyro demo ollama --model llama3.2:3b`,
    )
    .action(async () => (await import("../tour.js")).tour(context));
  if (asked === "ollama") (await import("./demo-ollama.js")).define(demo, context);
  else demo.command("ollama").summary("let a local model work in VMs").description("let a local model work in VMs");
}
