import type { Command as Program } from "commander";
import type { CommandContext } from "../program.js";
import { methods } from "../pipe/methods.js";
import { servePipe } from "../pipe/serve.js";
import { standardInput } from "../terminal.js";

export function define(program: Program, { output, interrupts }: CommandContext): void {
  program
    .command("pipe", { hidden: true })
    .description("For programs: answers JSON-RPC 2.0 requests, one a line, from standard input on standard output until standard input ends. See docs/pipe.md.")
    .action(async () => {
      await servePipe(standardInput(), output.guestStdout, methods, AbortSignal.any([interrupts.signal, output.lost]));
      interrupts.signal.throwIfAborted();
    });
}
