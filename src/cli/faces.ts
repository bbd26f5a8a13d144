/** The other faces that a command can put on; whoever starts the command line brings them, as faces know nothing of each other. */
import type { Readable, Writable } from "node:stream";

interface ServeOptions {
  tools?: "run" | "contract" | "all";
  maxVms?: number;
  maxRunningVms?: number;
  signal: AbortSignal;
  onError: (error: Error) => void;
}

export interface McpFace {
  serveStdio(options: ServeOptions & { input: Readable; output: Writable }): Promise<void>;
  serveHttp(options: ServeOptions & { host: string; port: number; allowRemote?: readonly string[]; tokenFile?: string; onListening: (where: { url: string; tokenPath: string; token?: string }) => void }): Promise<void>;
}

export interface Faces {
  mcp(): Promise<McpFace>;
}
