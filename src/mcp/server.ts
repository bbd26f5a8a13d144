/** The one factory, for every transport and every revision of the protocol. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { McpServer } from "@modelcontextprotocol/server";
import { PyroError } from "../base/error.js";
import { packageRoot } from "../base/paths.js";
import { icons } from "./icon.js";
import { registerPrompt } from "./prompt.js";
import { registerResources } from "./resources.js";
import { createShared, type Shared } from "./shared.js";
import { serveSkill } from "./skill.js";
import { registerTool } from "./tool.js";
import { toolProfiles, type ToolProfile } from "./tools/index.js";

export type { ToolProfile } from "./tools/index.js";

export interface CreateServerOptions {
  /** Which tools there are: `run` (one-off commands), `contract` (the lifecycle, too) or `all` (many commands on one VM, too); default `all`. */
  tools?: ToolProfile;
}

const instructions =
  "pyro runs commands in virtual machines of their own, isolated from the host. Run whatever nobody has checked here instead of on the user's machine: unknown code, installation scripts, builds, tests, experiments that may break something. vm_run is enough for one command; vm_open, vm_call and vm_delete are for several commands on the same files. A guest starts empty: bring files with `files`, get results with `return_paths`. Guests have no network unless you ask for one, best with `allow_hosts`. A command's exit status other than 0 is a result; an error result has a code, what happened, and the next step.";

const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string };

/** A server that has everything registered and waits for a transport: `await server.connect(transport)`. Nothing is started and nothing touched until a tool is called. */
export function createServer(options: CreateServerOptions = {}): McpServer {
  return createServerWith(options, createShared());
}

/** The same for whoever serves many clients from one process. Throws INVALID_ARGUMENT. */
export function createServerWith({ tools = "all" }: CreateServerOptions, shared: Shared): McpServer {
  if (!Object.hasOwn(toolProfiles, tools)) throw new PyroError("INVALID_ARGUMENT", `There are no tools ${JSON.stringify(tools)}.`, { hint: `Give one of ${Object.keys(toolProfiles).join(", ")}.` });
  const server = new McpServer(
    { name: "pyro-mcp", title: "pyro", version, description: "Commands that nobody has read, in a real virtual machine.", icons },
    { instructions, capabilities: { tools: { listChanged: false }, resources: { listChanged: false }, prompts: { listChanged: false } }, maxToolInputElements: 20_000 },
  );
  for (const tool of toolProfiles[tools]) registerTool(server, tool, shared);
  registerResources(server, shared);
  registerPrompt(server);
  serveSkill(server);
  return server;
}
