// `pyro mcp serve` as clients get it: the built command, over either transport, in a home of its own.
import { spawn, type ChildProcess } from "node:child_process";
import { createServer, request, type Server } from "node:http";
import { type AddressInfo } from "node:net";
import { main } from "../built.js";

export { main };

export interface Served {
  child: ChildProcess;
  url: string;
  token: string;
  stderr(): string;
  /** SIGTERM; its status. */
  end(): Promise<number | null>;
}

/** Over HTTP; resolves when it listens. */
export function serveHttp(args: readonly string[] = [], env: Record<string, string> = {}): Promise<Served> {
  const child = spawn(process.execPath, [main, "mcp", "serve", "--http", "127.0.0.1:0", ...args], { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  let text = "";
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return new Promise((resolve, reject) => {
    void exited.then((status) => reject(new Error(`the server ended with status ${status}: ${text}`)));
    child.stderr.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      const url = /listening url=(\S+)/.exec(text)?.[1];
      const token = /Bearer (\S+)\n/.exec(text)?.[1];
      if (url === undefined || (token === undefined && !args.includes("--token-file"))) return;
      resolve({ child, url, token: token ?? "", stderr: () => text, end: () => (child.kill("SIGTERM"), exited) });
    });
  });
}

/** For clients that can't be told a token: passes everything on as it is, with the token. */
export async function withToken({ url, token }: Pick<Served, "url" | "token">): Promise<{ url: string; close(): void }> {
  const target = new URL(url);
  const proxy: Server = createServer((incoming, outgoing) => {
    const onward = request({ host: target.hostname, port: target.port, path: incoming.url, method: incoming.method, headers: { ...incoming.headers, authorization: `Bearer ${token}` } }, (answer) => {
      outgoing.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    outgoing.on("close", () => onward.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}${target.pathname}`,
    close: () => {
      proxy.closeAllConnections();
      proxy.close();
    },
  };
}
