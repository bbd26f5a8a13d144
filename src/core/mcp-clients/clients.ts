/** The MCP clients that pyro can be configured in: where each keeps its configuration, and what an entry looks like there. The one table that names them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { PyroError } from "../../base/error.js";
import { nearest } from "../../base/nearest.js";
import { homeDirectory } from "../../base/paths.js";
import { settings } from "../../base/settings.js";

export const scopes = ["user", "project"] as const;
/** `user`: in all of the user's projects. `project`: in a file of the current directory, which a team may share. */
export type Scope = (typeof scopes)[number];

/** How a client starts a server: a program and its arguments. */
export interface ServerCommand {
  command: string;
  args: readonly string[];
}

export interface Client {
  /** For people. */
  title: string;
  format: "json" | "toml";
  /** The keys that lead to the servers. */
  container: readonly string[];
  /** Paths of the user's own file, most likely first; several where the client reads any of them. */
  user(): readonly string[];
  /** The file in a project, relative to it; empty where the client has none. */
  project: readonly string[];
  entry(server: ServerCommand): Record<string, unknown>;
}

const plain = ({ command, args }: ServerCommand) => ({ command, args: [...args] });
const typed = ({ command, args }: ServerCommand) => ({ type: "stdio", command, args: [...args] });

export const clients = {
  // https://code.claude.com/docs/en/mcp, "MCP installation scopes"; with CLAUDE_CONFIG_DIR the file moves into that directory.
  "claude-code": {
    title: "Claude Code",
    format: "json",
    container: ["mcpServers"],
    user: () => [join(settings.claudeConfigDirectory() ?? homeDirectory(), ".claude.json")],
    project: [".mcp.json"],
    entry: typed,
  },
  // https://modelcontextprotocol.io/docs/develop/connect-local-servers; on Linux where Electron keeps an application's data: app.getPath("userData").
  "claude-desktop": {
    title: "Claude Desktop",
    format: "json",
    container: ["mcpServers"],
    user: () => [join(applicationData(), "Claude", "claude_desktop_config.json")],
    project: [],
    entry: plain,
  },
  // https://developers.openai.com/codex/mcp; the project's file is read where the project is trusted.
  codex: {
    title: "Codex",
    format: "toml",
    container: ["mcp_servers"],
    user: () => [join(settings.codexHome() ?? join(homeDirectory(), ".codex"), "config.toml")],
    project: [join(".codex", "config.toml")],
    entry: plain,
  },
  // https://cursor.com/docs/mcp, "Configuration locations"
  cursor: {
    title: "Cursor",
    format: "json",
    container: ["mcpServers"],
    user: () => [join(homeDirectory(), ".cursor", "mcp.json")],
    project: [join(".cursor", "mcp.json")],
    entry: typed,
  },
  // https://opencode.ai/docs/mcp-servers and /docs/migrate-v1: version 2 reads version 1's form as well, and not the other way round.
  opencode: {
    title: "OpenCode",
    format: "json",
    container: ["mcp"],
    user: () => ["opencode.json", "opencode.jsonc"].map((name) => join(settings.xdgConfigHome() ?? join(homeDirectory(), ".config"), "opencode", name)),
    project: ["opencode.json", "opencode.jsonc"],
    entry: ({ command, args }) => ({ type: "local", command: [command, ...args] }),
  },
  // https://code.visualstudio.com/docs/copilot/reference/mcp-configuration; the user's is that of the default profile.
  vscode: {
    title: "VS Code",
    format: "json",
    container: ["servers"],
    user: () => [join(applicationData(), "Code", "User", "mcp.json")],
    project: [join(".vscode", "mcp.json")],
    entry: typed,
  },
} as const satisfies Record<string, Client>;

export type ClientName = keyof typeof clients;
export const clientNames = Object.keys(clients) as ClientName[];

/** Throws NOT_FOUND with the nearest names. */
export function findClient(name: string): Client {
  if (Object.hasOwn(clients, name)) return clients[name as ClientName];
  const near = nearest(name, clientNames);
  throw new PyroError("NOT_FOUND", `No MCP client called "${name}" is known.`, { hint: near.length > 0 ? `Did you mean ${near.join(" or ")}?` : `Known are ${clientNames.join(", ")}. For any other: pyro mcp print-config claude-desktop` });
}

/** All the files in which the client may have servers, most likely first. Throws UNSUPPORTED for a client that knows no projects. */
export function configFiles(name: string, scope: Scope, directory: string): readonly string[] {
  const client = findClient(name);
  if (scope === "user") return client.user();
  if (client.project.length === 0) throw new PyroError("UNSUPPORTED", `${client.title} has no configuration for a project.`, { hint: "Leave out --scope project." });
  return client.project.map((each) => join(directory, each));
}

/** The one of them that is there, or is to be made. */
export function configFile(name: string, scope: Scope, directory: string): string {
  const files = configFiles(name, scope, directory);
  return files.find((each) => existsSync(each)) ?? files[0]!;
}

/** Where applications with Electron keep their data. */
function applicationData(): string {
  if (process.platform === "darwin") return join(homeDirectory(), "Library", "Application Support");
  return settings.xdgConfigHome() ?? join(homeDirectory(), ".config");
}
