// A client that sends what it is told to, right or wrong, over standard input and output.
import { spawn, type ChildProcess } from "node:child_process";
import { main } from "./served.js";

export interface Answer {
  id?: number | string | null;
  result?: Record<string, unknown>;
  error?: { code: number; message: string };
  method?: string;
  params?: Record<string, unknown>;
}

export class RawClient {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  /** Lines of standard output that were no JSON. */
  readonly noise: string[] = [];
  readonly notifications: Answer[] = [];
  stderr = "";
  #rest = "";
  #next = 1;
  readonly #waiting = new Map<number | string, (answer: Answer) => void>();

  constructor(args: readonly string[] = [], env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [main, "mcp", "serve", ...args], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
    this.exited = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.stdin!.on("error", () => {});
    this.child.stdout!.on("data", (chunk: Buffer) => this.#read(chunk.toString()));
    this.child.stderr!.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
  }

  write(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  request(method: string, params: Record<string, unknown> = {}): Promise<Answer> {
    const id = this.#next++;
    const answer = new Promise<Answer>((resolve) => this.#waiting.set(id, resolve));
    this.write(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    return answer;
  }

  call(name: string, args: unknown, meta?: Record<string, unknown>): Promise<Answer> {
    return this.request("tools/call", { name, arguments: args, ...(meta && { _meta: meta }) });
  }

  async initialize(): Promise<Answer> {
    const answer = await this.request("initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "test", version: "1" } });
    this.write(JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" }));
    return answer;
  }

  /** Ends its input; the status. */
  end(): Promise<number | null> {
    this.child.stdin!.end();
    return this.exited;
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      let message: Answer;
      try {
        message = JSON.parse(line) as Answer;
      } catch {
        this.noise.push(line);
        continue;
      }
      if (message.method !== undefined) this.notifications.push(message);
      else this.#waiting.get(message.id ?? "")?.(message);
    }
  }
}
