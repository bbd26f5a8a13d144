import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { vmRunTool } from "../../src/core/vm-run-tool.js";
import { RawClient, type Answer } from "./raw-client.js";

const home = mkdtempSync(join(tmpdir(), "pyro-mcp-stdio-"));
const scratch = mkdtempSync(join(tmpdir(), "pyro-mcp-preload-"));
afterAll(() => {
  for (const each of [home, scratch]) rmSync(each, { recursive: true, force: true });
});
const env = { HOME: home };
const error = (answer: Answer) => (answer.result!["structuredContent"] as { error: { code: string; message: string; hint: string } }).error;
const peakKb = (client: RawClient) => Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${client.child.pid}/status`, "utf8"))![1]);

test("starting, being looked at and ending leaves nothing: no directory, no process", async () => {
  const client = new RawClient([], env);
  const { result } = await client.initialize();
  expect(result).toMatchObject({ protocolVersion: "2025-11-25", serverInfo: { name: "pyro-mcp", title: "pyro", version: "2.1.0" } });
  expect(result!["instructions"]).toContain("vm_run");
  for (const method of ["tools/list", "resources/list", "resources/templates/list", "prompts/list"]) expect((await client.request(method)).error).toBeUndefined();
  expect(await client.end()).toBe(0);
  expect(client.stderr).toBe("");
  expect(readdirSync(home)).toEqual([]);
});

test("a tool profile has the tools it says, in their order", async () => {
  const names = async (args: string[]) => {
    const client = new RawClient(args, env);
    await client.initialize();
    const { result } = await client.request("tools/list");
    await client.end();
    return (result!["tools"] as { name: string }[]).map(({ name }) => name);
  };
  expect(await names(["--tools", "run"])).toEqual(["vm_run", "vm_list_environments"]);
  expect((await names(["--tools", "contract"])).slice(-2)).toEqual(["vm_network_info", "vm_reap_expired"]);
  expect((await names([])).slice(-2)).toEqual(["vm_open", "vm_call"]);
});

test("what a model that is talked to directly is offered as vm_run is a part of the server's vm_run", async () => {
  const client = new RawClient(["--tools", "run"], env);
  await client.initialize();
  const { result } = await client.request("tools/list");
  await client.end();
  const [{ inputSchema }] = result!["tools"] as [{ inputSchema: { properties: Record<string, object>; required: string[] } }];
  const shape = ({ description: _description, ...rest }: { description?: string }) => rest;
  expect(vmRunTool.parameters.required).toEqual(inputSchema.required);
  for (const [name, property] of Object.entries(vmRunTool.parameters.properties)) expect(shape(property), name).toEqual(shape(inputSchema.properties[name]!));
});

test("wrong arguments: which, what was given, what is allowed, and what was meant", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  const wrong = async (name: string, args: unknown) => {
    const answer = await client.call(name, args);
    expect(answer.result).toMatchObject({ isError: true });
    return error(answer);
  };
  expect(await wrong("vm_run", { environment: "debian:12", command: "true", mem_mib: 64 })).toEqual({
    code: "INVALID_ARGUMENT",
    message: "mem_mib is 64; it is a whole number from 128 to 65536.",
    hint: "vm_run takes environment, command, vcpu_count, mem_mib, timeout_seconds, ttl_seconds, network, allow_hosts, deny_hosts, allow_host_compat, files, return_paths.",
  });
  for (const path of ["/etc/passwd", "./image", "..", "../image:latest"]) {
    expect((await wrong("vm_run", { environment: path, command: "true" })).message).toBe(`environment is "${path}"; it is a name and no path of the host; what is there gets a name by \`pyro env pull NAME --source PATH\`.`);
  }
  expect((await wrong("vm_run", { command: ["true", 7] })).message).toBe(
    'environment is missing; it is the name of an environment, as debian:12. command is ["true",7]; it is a line for the guest\'s shell, as "git --version", or an array of words that is executed without a shell, as ["git", "--version"].',
  );
  expect((await wrong("vm_run", { enviroment: "debian:12", environment: "debian:12", command: "true" })).message).toBe('There is no argument "enviroment". Did you mean environment?');
  for (const host of ["10.0.0.1", "http://example.org", ""]) {
    expect((await wrong("vm_run", { environment: "debian:12", command: "true", allow_hosts: [host] })).message).toBe(`allow_hosts.0 is "${host}"; it is an array of names, as example.org, *.example.org or example.org:443, and no addresses.`);
  }
  expect((await wrong("vm_run", { environment: "debian:12", command: "true", network: false, allow_hosts: ["example.org"] })).message).toBe("network is false, and something is asked of the network.");
  expect((await wrong("vm_run", { environment: "debian:12", command: "true", timeout_seconds: "30" })).message).toBe('timeout_seconds is "30"; it is a whole number from 1 to 86400.');
  expect((await wrong("vm_run", { environment: "debian:12", command: "true", files: { "a.txt": "x" } })).message).toBe('files has "a.txt"; each name in it is an absolute path in the guest.');
  expect((await wrong("vm_run", { environment: "debian:12", command: "true", ttl_seconds: 1e99 })).message).toBe("ttl_seconds is 1e+99; it is a whole number from 1 to 604800.");
  expect((await wrong("vm_run", { environment: "debian:12", command: "true", files: { "/a": "x".repeat(4_194_305) } })).message).toBe("files has 4194305 bytes; at most 4194304 are possible.");
  expect((await wrong("vm_run", { environment: "debian:12", command: "true", deny_hosts: ["example.org"] })).message).toBe("Nothing of the network is allowed.");
  expect(await wrong("vm_run", { environment: "debain:12", command: "true" })).toEqual({ code: "NOT_FOUND", message: 'There is no environment "debain:12".', hint: "Did you mean debian:12? Available are debian:12, debian:12-base, debian:12-build, and images: docker.io/library/NAME:TAG, ./DIRECTORY, ./ARCHIVE.tar." });
  expect(await wrong("vm_run", { environment: "debian:12", command: "" })).toEqual({ code: "INVALID_ARGUMENT", message: "The command is empty.", hint: 'Give a command: "git --version", or ["git", "--version"]' });
  expect((await wrong("vm_status", { vm_id: "vm-aaaaaaaa" })).hint).toBe("the resource pyro://vms shows those that are there.");
  expect((await client.call("vm_fly", {})).error).toMatchObject({ code: -32602 });
  await client.end();
});

test("malformed and nonsensical messages are survived", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  for (const line of ["{", "null", "[]", "[1,2]", '"x"', "{}", '{"jsonrpc":"1.0","id":1,"method":"ping"}', '{"jsonrpc":"2.0","id":{},"method":"ping"}', '{"jsonrpc":"2.0","id":null,"method":7}', "\u0000\u0001", "{".repeat(10_000), "[".repeat(100_000)]) client.write(line);
  for (const params of [null, 7, [], { name: 7 }, { name: "vm_run", arguments: [] }, { name: "vm_run", arguments: "x" }, { name: "__proto__", arguments: {} }, { name: "vm_run", arguments: JSON.parse('{"__proto__": {"environment": "debian:12"}}') as object }]) {
    client.write(JSON.stringify({ jsonrpc: "2.0", id: `x${JSON.stringify(params).length}`, method: "tools/call", params }));
  }
  client.write(JSON.stringify({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 12_345 } }));
  client.write(JSON.stringify({ jsonrpc: "2.0", id: 99_999, result: {} }));
  for (const uri of ["pyro://vms/..%2f..%2fetc", "pyro://vms/vm-aaaaaaaa/console", "pyro://results/x/stdout", "pyro://results/__proto__/stdout", "file:///etc/passwd", "skill://pyro-vms/../../package.json", "no uri"]) {
    expect((await client.request("resources/read", { uri })).error?.code, uri).toBeLessThan(0);
  }
  expect((await client.request("ping")).result).toEqual({});
  expect(await client.end()).toBe(0);
  expect(client.noise).toEqual([]);
});

test("a message that is too long ends the connection, and costs no more than its limit", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  client.child.stdin!.write(`{"jsonrpc":"2.0","id":7,"method":"${"x".repeat(64 << 20)}"}\n`);
  expect(await client.exited).toBe(0);
});

test("10,000 calls at once are all answered, in bounded memory; also by a client that reads nothing until all are sent", async () => {
  for (const slow of [false, true]) {
    const client = new RawClient([], env);
    await client.initialize();
    if (slow) client.child.stdout!.pause();
    const answers = Array.from({ length: 10_000 }, (_, index) => client.call("vm_status", { vm_id: `vm-${String(index).padStart(8, "0")}` }));
    if (slow) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      client.child.stdout!.resume();
    }
    const codes = new Set((await Promise.all(answers)).map((answer) => error(answer).code));
    expect([...codes]).toEqual(["NOT_FOUND"]);
    expect(peakKb(client)).toBeLessThan(300_000);
    expect(await client.end()).toBe(0);
  }
});

test("2,000 calls at once that look at a VM and change it take few descriptors and processes", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  const { vm_id } = (await client.call("vm_create", { environment: "debian:12" })).result!["structuredContent"] as { vm_id: string };
  execFileSync("prlimit", ["--pid", String(client.child.pid), "--nofile=400"]);
  let most = 0;
  const look = setInterval(() => (most = Math.max(most, readFileSync(`/proc/${client.child.pid}/task/${client.child.pid}/children`, "latin1").split(" ").length)), 20);
  const answers = Array.from({ length: 2000 }, (_, index) => client.call(index % 50 === 0 ? "vm_stop" : "vm_status", { vm_id }));
  const results = (await Promise.all(answers)).map(({ result }) => result!["structuredContent"] as { state?: string; error?: object });
  clearInterval(look);
  expect(results.filter(({ state }) => state !== "created" && state !== "stopped")).toEqual([]);
  expect(most).toBeLessThan(40);
  await client.call("vm_delete", { vm_id });
  expect(await client.end()).toBe(0);
});

test("a client that never reads stops being read", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  client.child.stdout!.pause();
  // Answers of 40 kB each: 400 MB if they were all made.
  for (let index = 0; index < 10_000; index++) client.write(JSON.stringify({ jsonrpc: "2.0", id: `s${index}`, method: "tools/list", params: {} }));
  await new Promise((resolve) => setTimeout(resolve, 3000));
  expect(peakKb(client)).toBeLessThan(300_000);
  client.child.kill("SIGKILL");
});

test("the end of a client that never reads is seen", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  client.child.stdout!.pause();
  for (let index = 0; index < 1000; index++) client.write(JSON.stringify({ jsonrpc: "2.0", id: `s${index}`, method: "tools/list", params: {} }));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  expect(await client.end()).toBe(0);
  expect(client.stderr).toBe(""); // no warning of too many listeners
});

test("subscriptions that stay open leave room for everything else", async () => {
  const _meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" }, "io.modelcontextprotocol/clientCapabilities": {} };
  const client = new RawClient([], env);
  const listens = Array.from({ length: 600 }, () => client.request("subscriptions/listen", { _meta, notifications: {} }));
  expect((await client.request("tools/list", { _meta })).error).toBeUndefined();
  expect((await listens[599]!).error).toMatchObject({ message: "Subscription limit reached" });
  expect(client.notifications).toHaveLength(64);
  expect(await client.end()).toBe(0);
});

test("standard output is the protocol's, whatever a package prints", async () => {
  const preload = join(scratch, "preload.mjs");
  writeFileSync(preload, 'setInterval(() => { if (globalThis.process.stdin.listenerCount("data") > 0) { console.log("noise from a package"); process.stdout.write("more noise\\n"); } }, 20).unref();');
  const client = new RawClient([], { ...env, NODE_OPTIONS: `--import=${preload}` });
  await client.initialize();
  while (!client.stderr.includes("more noise")) await client.request("tools/list");
  expect(await client.end()).toBe(0);
  expect(client.noise).toEqual([]);
  expect(client.stderr).toContain("noise from a package\n");
});

test("a signal ends it cleanly", async () => {
  const client = new RawClient([], env);
  await client.initialize();
  client.child.kill("SIGTERM");
  expect(await client.exited).toBe(0);
});
