// The official Inspector's command line: a client that nobody of us wrote. Each call is a process of its own, over standard input and output with a server of its own, too:
// what a VM is lives with its vm_id.
import { afterAll, beforeAll, expect, test } from "vitest";
import { officialTools, runTool } from "../mcp/newer-node.js";
import { main, serveHttp, type Served } from "../mcp/served.js";
import { leftForGood } from "./pyro.js";

const environment = "debian:12-base";
let http: Served;
beforeAll(async () => {
  officialTools();
  http = await serveHttp();
});
afterAll(async () => {
  expect(await http.end()).toBe(0);
  expect(await leftForGood(process.env["HOME"]!)).toEqual([]);
});

type Era = "legacy" | "modern";
interface Said {
  status: number | null;
  result: Record<string, unknown>;
  stderr: string;
}

const targets: Record<string, () => string[]> = {
  stdio: () => [process.execPath, main, "mcp", "serve"],
  HTTP: () => [http.url, "--header", `Authorization: Bearer ${http.token}`],
};

async function inspect(target: string, era: Era, ...args: string[]): Promise<Said> {
  const { status, stdout, stderr } = await runTool("mcp-inspector", ["--cli", ...targets[target]!(), "--protocol-era", era, "--format", "json", ...args]);
  const first = stdout.split("\n").find((line) => line.startsWith("{"));
  return { status, stderr, result: first === undefined ? {} : ((JSON.parse(first) as { result?: Record<string, unknown> }).result ?? {}) };
}

/** What a tool answered. */
async function call(target: string, era: Era, name: string, args: object): Promise<Record<string, unknown>> {
  const { status, result, stderr } = await inspect(target, era, "--method", "tools/call", "--tool-name", name, "--tool-args-json", JSON.stringify(args));
  expect({ name, status, stderr: status === 0 ? "" : stderr }).toEqual({ name, status: 0, stderr: "" });
  return result["structuredContent"] as Record<string, unknown>;
}

for (const [target, era] of [["stdio", "legacy"], ["stdio", "modern"], ["HTTP", "legacy"], ["HTTP", "modern"]] as const) {
  test(`${target}, ${era}: tools whose schemas every client can read, and a command in a VM`, async () => {
    const { status, result, stderr } = await inspect(target, era, "--method", "tools/list", "--strict");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(result["tools"]).toHaveLength(12);
    expect(await call(target, era, "vm_run", { environment, command: "echo out; exit 3" })).toMatchObject({ exit_code: 3, stdout: "out\n" });
  });
}

for (const [target, era] of [["stdio", "modern"], ["HTTP", "legacy"]] as const) {
  test(`${target}, ${era}: all other tools, each in a process of its own`, async () => {
    const call1 = (name: string, args: object) => call(target, era, name, args);
    const listed = (await call1("vm_list_environments", {}))["environments"] as { name: string }[];
    expect(listed.map((each) => each.name)).toEqual(expect.arrayContaining(["debian:12", "debian:12-base", "debian:12-build"]));
    const { vm_id } = await call1("vm_create", { environment, ttl_seconds: 1200 });
    expect(await call1("vm_start", { vm_id })).toMatchObject({ state: "started" });
    expect(await call1("vm_call", { vm_id, command: "echo x > /root/x" })).toMatchObject({ exit_code: 0 });
    expect(await call1("vm_network_info", { vm_id })).toEqual({ vm_id, network_enabled: false, policy: "none" });
    expect(await call1("vm_status", { vm_id })).toMatchObject({ state: "started", mem_mib: 1024 });
    expect(await call1("vm_exec", { vm_id, command: "cat /root/x" })).toMatchObject({ stdout: "x\n" });
    const other = await call1("vm_open", { environment, ttl_seconds: 1200 });
    expect(await call1("vm_stop", { vm_id: other["vm_id"] })).toMatchObject({ state: "stopped" });
    expect(await call1("vm_delete", { vm_id: other["vm_id"] })).toEqual({ vm_id: other["vm_id"], deleted: true });
    expect(await call1("vm_reap_expired", {})).toEqual({ reaped: [] });
  });
}

test("a failure is told as one; resources, the prompt and the skill are read and verified", async () => {
  const failed = await inspect("stdio", "modern", "--method", "tools/call", "--tool-name", "vm_status", "--tool-args-json", '{"vm_id":"vm-aaaaaaaa"}');
  expect(failed).toMatchObject({ status: 5, result: { isError: true, structuredContent: { error: { code: "NOT_FOUND" } } } });
  expect((await inspect("stdio", "legacy", "--method", "resources/read", "--uri", "pyro://environments")).result["contents"]).toMatchObject([{ mimeType: "application/json" }]);
  expect((await inspect("stdio", "legacy", "--method", "prompts/get", "--prompt-name", "do_in_vm", "--prompt-args", "task=test")).result["messages"]).toHaveLength(1);
  const skills = await runTool("mcp-inspector", ["--cli", ...targets["stdio"]!(), "--protocol-era", "modern", "--format", "json", "--method", "skills/list", "--verify"]);
  expect(skills.status).toBe(0);
  expect(JSON.parse(skills.stdout.split("\n")[0]!)).toMatchObject({ name: "pyro-vms", outcome: "verified" });
});
