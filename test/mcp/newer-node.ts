// The official tools need a newer Node than pyro does; npm has one. All of them come in one go, once; then they are run as they are.
import { spawn, spawnSync } from "node:child_process";
import { dirname } from "node:path";

const packages = ["node@24", "@modelcontextprotocol/conformance@0.2.0-alpha.12", "@modelcontextprotocol/inspector@2.12"];

let found: { node: string; directory: string } | undefined;

/** Where they are. */
export function officialTools(): { node: string; directory: string } {
  if (found !== undefined) return found;
  const { status, stdout, stderr } = spawnSync("npx", ["-y", ...packages.flatMap((name) => ["-p", name]), "-c", "command -v conformance"], { encoding: "utf8", timeout: 900_000 });
  if (status !== 0) throw new Error(`npx: status ${status}\n${stderr}`);
  const directory = dirname(stdout.trim().split("\n").at(-1)!);
  return (found = { node: `${directory}/node`, directory });
}

export interface ToolResult {
  status: number | null;
  stdout: string;
  stderr: string;
}

export function runTool(name: "conformance" | "mcp-inspector", args: readonly string[], options: { cwd?: string; env?: Record<string, string> } = {}): Promise<ToolResult> {
  const { directory } = officialTools();
  const child = spawn(`${directory}/${name}`, args, { stdio: ["ignore", "pipe", "pipe"], ...(options.cwd && { cwd: options.cwd }), env: { ...process.env, ...options.env, PATH: `${directory}:${process.env["PATH"]}`, NO_COLOR: "1" } });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve({ status, stdout, stderr }));
  });
}
