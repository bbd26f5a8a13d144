import { createRequire } from "node:module";
import type { McpServer } from "@modelcontextprotocol/server";
import type * as Mcp from "../mcp/index.js";

/** What a server of `createServer` is made with. */
export interface CreateServerOptions {
  /** Which tools there are: `run` (one-off commands), `contract` (the lifecycle, too) or `all` (many commands on one VM, too); default `all`. */
  tools?: "run" | "contract" | "all";
}

/**
 * An MCP server that is ready to be connected to a transport: `await createServer().connect(transport)`; also a factory for the library's `serveStdio` and
 * `createMcpHandler`. Nothing is started and nothing touched until a tool is called. Throws INVALID_ARGUMENT.
 */
export function createServer(options: CreateServerOptions = {}): McpServer {
  // Loaded now and not with the package, as it takes 100 ms that most users of the SDK have no need to spend; and at once, so that there is nothing to await.
  const { createServer: create } = createRequire(import.meta.url)("../mcp/index.js") as typeof Mcp;
  return create(options);
}
