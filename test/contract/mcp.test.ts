// The public contract of MCP, as literals: a tool, an argument or a default that changes here is a breaking change.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { RawClient } from "../mcp/raw-client.js";

const home = mkdtempSync(join(tmpdir(), "pyro-mcp-contract-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));

interface Tool {
  name: string;
  title: string;
  description: string;
  inputSchema: { type: string; properties: Record<string, { default?: unknown; description?: string; minimum?: number; maximum?: number }>; required?: string[]; additionalProperties: boolean };
  outputSchema: { type: string };
  annotations: Record<string, unknown>;
}

let listed: Promise<Tool[]> | undefined;

function tools(): Promise<Tool[]> {
  return (listed ??= list());
}

async function list(): Promise<Tool[]> {
  const client = new RawClient([], { HOME: home });
  await client.initialize();
  const { result } = await client.request("tools/list");
  await client.end();
  return result!["tools"] as Tool[];
}

test("tools, in their order, with the arguments they need and those they can do without", async () => {
  const of = (await tools()).map(({ name, inputSchema: { properties, required = [] } }) => [name, required.join(" "), Object.keys(properties).filter((each) => !required.includes(each)).join(" ")]);
  expect(of).toEqual([
    ["vm_run", "environment command", "vcpu_count mem_mib timeout_seconds ttl_seconds network allow_hosts deny_hosts allow_host_compat files return_paths"],
    ["vm_list_environments", "", ""],
    ["vm_create", "environment", "vcpu_count mem_mib ttl_seconds network allow_hosts deny_hosts allow_host_compat"],
    ["vm_start", "vm_id", ""],
    ["vm_exec", "vm_id command", "timeout_seconds"],
    ["vm_stop", "vm_id", ""],
    ["vm_delete", "vm_id", ""],
    ["vm_status", "vm_id", ""],
    ["vm_network_info", "vm_id", ""],
    ["vm_reap_expired", "", ""],
    ["vm_open", "environment", "vcpu_count mem_mib ttl_seconds network allow_hosts deny_hosts allow_host_compat"],
    ["vm_call", "vm_id command", "timeout_seconds files return_paths"],
  ]);
});

test("defaults and ranges", async () => {
  const [run, , create, , exec] = await tools();
  const told = (tool: Tool) => Object.fromEntries(Object.entries(tool.inputSchema.properties).flatMap(([name, { default: value, minimum, maximum }]) => (value === undefined ? [] : [[name, [value, minimum, maximum].filter((each) => each !== undefined)]])));
  expect(told(run!)).toEqual({ vcpu_count: [1, 1, 32], mem_mib: [1024, 128, 65_536], timeout_seconds: [30, 1, 86_400], ttl_seconds: [600, 1, 604_800], network: [false], allow_host_compat: [false] });
  expect(told(create!)).toEqual({ vcpu_count: [1, 1, 32], mem_mib: [1024, 128, 65_536], ttl_seconds: [600, 1, 604_800], network: [false], allow_host_compat: [false] });
  expect(told(exec!)).toEqual({ timeout_seconds: [30, 1, 86_400] });
});

test("what each may do, in the worst case", async () => {
  const hints = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"];
  expect((await tools()).map(({ name, annotations }) => [name, ...hints.map((hint) => annotations[hint])])).toEqual([
    ["vm_run", false, true, false, true],
    ["vm_list_environments", true, false, true, false],
    ["vm_create", false, false, false, false],
    ["vm_start", false, false, false, true],
    ["vm_exec", false, true, false, true],
    ["vm_stop", false, true, true, false],
    ["vm_delete", false, true, true, false],
    ["vm_status", true, false, true, false],
    ["vm_network_info", true, false, true, false],
    ["vm_reap_expired", false, true, true, false],
    ["vm_open", false, false, false, true],
    ["vm_call", false, true, false, true],
  ]);
});

test("every tool says what it is for, and every argument what it is", async () => {
  for (const { name, title, description, inputSchema, outputSchema } of await tools()) {
    expect(title.length, name).toBeGreaterThan(5);
    expect(description.length, name).toBeGreaterThan(100);
    expect(inputSchema).toMatchObject({ type: "object", additionalProperties: false });
    expect(outputSchema).toMatchObject({ type: "object" });
    for (const [argument, { description: about = "" }] of Object.entries(inputSchema.properties)) expect(about.length, `${name} ${argument}`).toBeGreaterThan(20);
  }
});

test("resources and prompts", async () => {
  const client = new RawClient([], { HOME: home });
  await client.initialize();
  const fieldsOf = async (method: string, of: string, field: string) => ((await client.request(method)).result![of] as Record<string, string>[]).map((each) => each[field]);
  expect(await fieldsOf("resources/list", "resources", "uri")).toEqual(["pyro://environments", "pyro://vms", "skill://pyro-vms/SKILL.md"]);
  expect(await fieldsOf("resources/templates/list", "resourceTemplates", "uriTemplate")).toEqual(expect.arrayContaining(["pyro://vms/{vm_id}", "pyro://vms/{vm_id}/console", "pyro://results/{result_id}/{stream}"]));
  expect(await fieldsOf("prompts/list", "prompts", "name")).toEqual(["do_in_vm"]);
  await client.end();
});

test("loading the package does not load what only a server needs", () => {
  const dist = JSON.stringify(new URL("../../dist/index.js", import.meta.url).href);
  // Node's own list of what CommonJS and `require` brought in; ES modules show in the time that a hook sees them.
  const script = `import { register } from "node:module";
    register("data:text/javascript," + encodeURIComponent("export async function load(url, context, next) { if (/node_modules/.test(url)) process._rawDebug('loaded ' + url); return next(url, context); }"));
    await import(${dist});`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8", env: { PATH: process.env["PATH"]!, HOME: home } });
  expect({ status, loaded: stderr.split("\n").filter((line) => line.startsWith("loaded ")) }).toEqual({ status: 0, loaded: [] });
});
