import { InvalidArgumentError, Option, type Command as Program } from "commander";
import { log } from "../../base/log.js";
import type { CommandContext } from "../program.js";
import { standardInput } from "../terminal.js";

interface ServeFlags {
  http?: { host: string; port: number };
  allowRemote?: string[];
  tokenFile?: string;
  tools?: "run" | "contract" | "all";
  maxVms?: number;
  maxRunningVms?: number;
}

export function define(mcp: Program, context: CommandContext): void {
  mcp
    .command("serve")
    .description("serve one client over standard input and output, or many over HTTP")
    .addOption(new Option("--http <address:port>", "serve over HTTP instead; port 0 takes a free one and says which").argParser(parseAddress))
    .addOption(new Option("--allow-remote <name>", "listen on an address that is not loopback; clients call this host by NAME; may be given again").argParser((name: string, before: string[] = []) => [...before, name]))
    .option("--token-file <path>", "holds the token that clients over HTTP show (default a new one)")
    .addOption(new Option("--tools <profile>", "run: one-off commands; contract: the lifecycle of VMs, too; all: many commands on one VM, too (default all)").choices(["run", "contract", "all"]))
    .addOption(new Option("--max-vms <n>", "VMs that are started or worked with at the same time (1 to 256, default 16)").argParser(numberTo(256)))
    .addOption(new Option("--max-running-vms <n>", "VMs of vm_open and vm_start that run at the same time (1 to 1024, default 64)").argParser(numberTo(1024)))
    .addHelpText(
      "after",
      `
Over standard input and output it ends when its input ends, and every command that it runs with it. Over HTTP it ends by SIGTERM.

Examples:
  pyro mcp serve
  pyro mcp serve --http 127.0.0.1:0`,
    )
    .action(async ({ http, allowRemote, tokenFile, ...flags }: ServeFlags) => serve({ ...flags, ...(http && { http }), ...(allowRemote && { allowRemote }), ...(tokenFile !== undefined && { tokenFile }) }, context));
}

async function serve({ http, allowRemote, tokenFile, ...flags }: ServeFlags, { faces, interrupts, output }: CommandContext): Promise<void> {
  const options = { ...flags, signal: interrupts.signal, onError: (error: Error) => log("mcp", { error: error.message }) };
  if (http === undefined) {
    const protocol = output.protocol(); // first: from here on nothing else may be written there, by whichever package
    const { serveStdio } = await faces.mcp();
    return serveStdio({ ...options, input: standardInput(), output: protocol });
  }
  const { serveHttp } = await faces.mcp();
  await serveHttp({
    ...options,
    ...http,
    ...(allowRemote && { allowRemote }),
    ...(tokenFile !== undefined && { tokenFile }),
    onListening: ({ url, tokenPath, token }) => {
      if (allowRemote !== undefined) output.line(`warning: clients elsewhere can connect; what they send, the token too, is not encrypted`);
      output.line(`[mcp] listening url=${url} token_file=${tokenPath}`);
      if (token !== undefined) output.line(`[mcp] clients send the header: Authorization: Bearer ${token}`);
    },
  });
}

function parseAddress(text: string): { host: string; port: number } {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^\s:[\]]+):)?([0-9]{1,5})$/.exec(text);
  if (match === null || Number(match[2]) > 65_535) throw new InvalidArgumentError("It is ADDRESS:PORT, as 127.0.0.1:0 or [::1]:8080.");
  return { host: (match[1] ?? "127.0.0.1").replace(/^\[|\]$/g, ""), port: Number(match[2]) };
}

function numberTo(most: number): (text: string) => number {
  return (text) => {
    if (!/^[0-9]{1,4}$/.test(text) || Number(text) < 1 || Number(text) > most) throw new InvalidArgumentError(`It is a whole number from 1 to ${most}.`);
    return Number(text);
  };
}
