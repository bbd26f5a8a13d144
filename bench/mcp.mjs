// What MCP costs. Start: from the spawn of `pyro mcp serve` to its answer to tools/list; floor: a server of the same library with one tool and nothing else. A call: vm_run over
// standard input and output; floor: sdk.runInVm in this process. Both pairs take turns.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Pyro } from "../dist/index.js";
import { describeMs, median } from "./statistics.mjs";

const rounds = Number(process.env.ROUNDS ?? 15);
const root = fileURLToPath(new URL("..", import.meta.url));
const main = `${root}dist/main.cjs`;
const bare = `import { McpServer } from "@modelcontextprotocol/server"; import { serveStdio } from "@modelcontextprotocol/server/stdio"; import * as z from "zod";
serveStdio(() => { const server = new McpServer({ name: "bare", version: "1" }); server.registerTool("tool", { inputSchema: z.object({ command: z.string() }) }, () => ({ content: [] })); return server; });`;
const environment = "debian:12";
const pyro = new Pyro();

class Client {
  constructor(args) {
    this.child = spawn(process.execPath, args, { cwd: root, stdio: ["pipe", "pipe", "inherit"] });
    this.waiting = new Map();
    this.next = 1;
    let rest = "";
    this.child.stdout.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) this.waiting.get(JSON.parse(line).id)?.(JSON.parse(line).result);
    });
  }
  request(method, params = {}) {
    const id = this.next++;
    this.child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`);
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }
  /** Two messages at once: a client need not wait for the first answer to send the second request. */
  async tools() {
    void this.request("initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "1" } });
    this.child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" })}\n`);
    return (await this.request("tools/list")).tools;
  }
  async end() {
    this.child.stdin.end();
    await new Promise((resolve) => this.child.once("exit", resolve));
  }
}

const times = { bare: [], pyro: [], run: [], call: [] };
for (let round = 0; round < rounds; round++) {
  times.bare.push(await timeStart(["--input-type=module", "-e", bare], 1));
  times.pyro.push(await timeStart([main, "mcp", "serve"], 12));
}
await pyro.runInVm({ environment, command: ["/bin/true"] }); // the template is there from here on
const client = new Client([main, "mcp", "serve"]);
await client.tools();
for (let round = 0; round <= rounds; round++) {
  const run = await time(() => pyro.runInVm({ environment, command: ["/bin/true"] }));
  const call = await time(() => client.request("tools/call", { name: "vm_run", arguments: { environment, command: ["/bin/true"] } }));
  if (round === 0) continue; // loads code on both sides
  times.run.push(run);
  times.call.push(call);
}
await client.end();
const pairs = (a, b, of) => median(times[a].map((ms, round) => of(ms, times[b][round])));
console.log(`${rounds} rounds`);
console.log(`floor, a bare server of the same library, spawn to tools/list: ${describeMs(times.bare)}`);
console.log(`pyro mcp serve, the same:                                      ${describeMs(times.pyro)}; ratio pair by pair ${pairs("pyro", "bare", (a, b) => a / b).toFixed(2)}; goal: at most 1.4`);
console.log(`floor, sdk.runInVm of /bin/true:                               ${describeMs(times.run)}`);
console.log(`vm_run, the same:                                              ${describeMs(times.call)}; pair by pair the floor plus ${pairs("call", "run", (a, b) => a - b).toFixed(0)} ms; goal: at most plus 10 ms`);

async function timeStart(args, wanted) {
  const begin = performance.now();
  const started = new Client(args);
  const tools = await started.tools();
  const ms = performance.now() - begin;
  if (tools.length !== wanted) throw new Error(`${tools.length} tools`);
  await started.end();
  return ms;
}

async function time(work) {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}
