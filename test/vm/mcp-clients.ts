// The two official client libraries, behind one shape.
import { Client as NewClient } from "@modelcontextprotocol/client";
import { StdioClientTransport as NewTransport } from "@modelcontextprotocol/client/stdio";
import { Client as OldClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as OldTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import { main } from "../mcp/served.js";

export interface CallOptions {
  signal?: AbortSignal;
  onprogress?: (progress: { progress: number; message?: string }) => void;
}

export interface McpClient {
  call(name: string, args: Record<string, unknown>, options?: CallOptions): Promise<CallResult>;
  read(uri: string): Promise<string>;
  pid: number;
  close(): Promise<void>;
}

export interface CallResult {
  isError: boolean;
  text: string;
  structured: Record<string, unknown>;
  links: string[];
}

type Library = (env: Record<string, string>) => Promise<McpClient>;

/** Each connects to a server process of its own. */
export const libraries: Record<string, Library> = {
  "client 1.x": async (env) => {
    const transport = new OldTransport(server(env));
    const client = new OldClient({ name: "test", version: "1" });
    await client.connect(transport as Parameters<typeof client.connect>[0]);
    await client.listTools(); // it holds results to their schemas then
    return shaped(client, transport.pid!, (params, options) => client.callTool(params, undefined, options));
  },
  "client 2.x, 2025-11-25": (env) => connectNew(env, "legacy"),
  "client 2.x, 2026-07-28": (env) => connectNew(env, { pin: "2026-07-28" }),
};

async function connectNew(env: Record<string, string>, mode: "legacy" | { pin: string }): Promise<McpClient> {
  const transport = new NewTransport(server(env));
  const client = new NewClient({ name: "test", version: "1" }, { versionNegotiation: { mode } });
  await client.connect(transport);
  await client.listTools();
  return shaped(client, transport.pid!, (params, options) => client.callTool(params, options));
}

function server(env: Record<string, string>) {
  return { command: process.execPath, args: [main, "mcp", "serve"], stderr: "inherit" as const, env: { ...(process.env as Record<string, string>), ...env } };
}

interface AnyClient {
  readResource(params: { uri: string }): Promise<{ contents: unknown[] }>;
  close(): Promise<void>;
}

function shaped(client: AnyClient, pid: number, callTool: (params: { name: string; arguments: Record<string, unknown> }, options: object) => Promise<unknown>): McpClient {
  return {
    pid,
    call: async (name, args, { signal, onprogress } = {}) => {
      const options = { timeout: 900_000, ...(signal && { signal }), ...(onprogress && { onprogress }) };
      const { isError = false, content, structuredContent } = (await callTool({ name, arguments: args }, options)) as { isError?: boolean; content: { type: string; text?: string; uri?: string }[]; structuredContent: Record<string, unknown> };
      return { isError, text: content[0]?.text ?? "", structured: structuredContent, links: content.flatMap(({ type, uri }) => (type === "resource_link" ? [uri!] : [])) };
    },
    read: async (uri) => ((await client.readResource({ uri })).contents[0] as { text: string }).text,
    close: () => client.close(),
  };
}
