// `pyro pipe` as programs have it: a process that answers nothing but JSON-RPC, whatever it is told. The names are bound by semantic versioning.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { main } from "../built.js";

const home = mkdtempSync(join(tmpdir(), "pyro-pipe-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));

const names = ["list_environments", "pull_environment", "inspect_environment", "prune_environments", "create_vm", "start_vm", "exec_vm", "stop_vm", "delete_vm", "status_vm", "list_vms", "logs_vm", "network_info_vm", "set_network_vm", "audit_vm", "reap_expired", "run_in_vm"];

interface Answer {
  jsonrpc: string;
  id: string | number | null;
  result?: unknown;
  error?: { code: number; message: string; data: { code: string; hint?: string } };
}

/** Writes `pieces`, then a request whose answer is waited for, with those to `ids`; then ends the input, which cancels what still runs. */
async function talk(pieces: Iterable<Buffer | string>, ids: readonly number[] = []): Promise<{ status: number | null; stderr: string; answers: Answer[] }> {
  const child = spawn(process.execPath, [main, "pipe"], { env: { PATH: process.env["PATH"]!, HOME: home } });
  const stdout: Buffer[] = [];
  let stderr = "";
  let tail = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr += String(chunk)));
  child.stdout.on("data", (chunk: Buffer) => {
    stdout.push(chunk);
    tail = (tail + chunk.toString("latin1")).slice(-200_000);
    if (['"the last one"', ...ids].every((id) => tail.includes(`"id":${id},`))) child.stdin.end();
  });
  for (const piece of pieces) if (!child.stdin.write(piece)) await new Promise((resolve) => child.stdin.once("drain", resolve));
  child.stdin.write('\n{"jsonrpc":"2.0","id":"the last one","method":"list_vms"}\n');
  const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
  const text = Buffer.concat(stdout).toString("utf8");
  expect(text.endsWith("\n")).toBe(true);
  return { status, stderr, answers: text.slice(0, -1).split("\n").map((line) => JSON.parse(line) as Answer) };
}

const request = (id: unknown, method: string, params?: unknown) => `${JSON.stringify({ jsonrpc: "2.0", id, method, ...(params !== undefined && { params }) })}\n`;

test("methods", async () => {
  const { status, stderr, answers } = await talk([request(1, "no such method")]);
  expect(answers[0]!.error!.data.hint).toBe(`There are ${names.join(", ")}.`);
  expect([status, stderr, answers.at(-1)]).toEqual([0, "", { jsonrpc: "2.0", id: "the last one", result: [] }]);
});

test("it is not in the help, and has one", () => {
  const help = (...args: string[]) => new Promise<string>((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { env: { PATH: process.env["PATH"]!, HOME: home } });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => (text += String(chunk)));
    child.once("close", () => resolve(text));
  });
  return Promise.all([expect(help("--help")).resolves.not.toContain("pipe"), expect(help("help", "pipe")).resolves.toContain("docs/pipe.md")]);
});

test("calls that need no VM", async () => {
  const { answers } = await talk([
    request(1, "list_environments"), request(2, "inspect_environment", { environment: "debian:12" }), request(3, "status_vm", { vm_id: "vm-aaaaaaaa" }), request(4, "reap_expired"), request(5, "prune_environments"),
    request(6, "create_vm", { environment: "debian:13" }), request(7, "run_in_vm", { environment: "debian:12", command: "x", mem_mib: 1 }), request(8, "exec_vm", { vm_id: "x", command: "x", timeout_seconds: 0 }),
    request(9, "run_in_vm", { environment: "debian:12", command: "x", capture_bytes: 1 }), request(10, "run_in_vm", { environment: "e".repeat(7_000_000), command: "x" }),
  ], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  const of = (id: number) => answers.find((each) => each.id === id)!;
  expect((of(1).result as { name: string }[]).map((each) => each.name)).toEqual(["debian:12", "debian:12-base", "debian:12-build"]);
  expect(of(2).result).toMatchObject({ name: "debian:12", installed: false });
  expect(of(3).error).toMatchObject({ code: -32000, data: { code: "NOT_FOUND" } });
  expect(of(4).result).toEqual({ reaped: [] });
  expect(of(5).result).toEqual({ reclaimed_bytes: 0, removed: [] });
  expect(of(6).error).toMatchObject({ code: -32000, message: 'There is no environment "debian:13".', data: { code: "NOT_FOUND" } });
  expect(of(7).error).toEqual({ code: -32602, message: "mem_mib is 1; it is a whole number from 128 to 65536.", data: { code: "INVALID_ARGUMENT", hint: "Give a mem_mib from 128 to 65536, or leave it out for 1024." } });
  expect(of(8).error).toMatchObject({ code: -32602, message: "timeout_seconds is 0; it is a whole number from 1 to 86400." });
  expect(of(9).error).toMatchObject({ code: -32602, message: "capture_bytes is 1; it is a whole number from 1024 to 67108864." });
  expect(of(10).error!.message.length).toBeLessThan(300);
});

test("a line of 8 MiB is too long, one of deep nesting is not JSON or no request, and both are survived", async () => {
  const { status, answers } = await talk(["x".repeat(9 << 20), "\n", "[".repeat(200_000), "\n", '{"a":'.repeat(200_000), "\n", `${"[".repeat(200_000)}${"]".repeat(200_000)}\n`]);
  expect(answers.map(({ id, error }) => [id, error?.code])).toEqual([[null, -32600], [null, -32700], [null, -32700], [null, -32600], ["the last one", undefined]]);
  expect(status).toBe(0);
});

test("thousands of lines that somebody broke: it never dies, and what it answers is JSON-RPC", async () => {
  const random = lcg(20261124);
  const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
  // Nothing here names an environment that exists: a request that came through by chance must not fetch one.
  const values: unknown[] = [null, true, 0, -1, 1.5, 1e308, "", "x", "vm-aaaaaaaa", "nowhere:1", [], ["x"], {}, { a: 1 }, "\u0000", "\ud800", "é".repeat(300), [[[]]], { __proto__: null, constructor: 1 }];
  const argumentNames = ["environment", "vm_id", "command", "mem_mib", "vcpu_count", "timeout_seconds", "env", "force", "__proto__", "memMib", "", "network"];
  const whole = () => ({
    jsonrpc: random() < 0.9 ? "2.0" : pick(values),
    ...(random() < 0.9 && { id: random() < 0.8 ? Math.floor(random() * 1000) : pick(values) }),
    method: random() < 0.8 ? pick([...names, "cancel"]) : pick(values),
    ...(random() < 0.9 && { params: random() < 0.8 ? Object.fromEntries(Array.from({ length: Math.floor(random() * 4) }, () => [pick(argumentNames), pick(values)])) : pick(values) }),
  });
  const lines = Array.from({ length: 4000 }, () => {
    const bytes = Buffer.from(JSON.stringify(random() < 0.9 ? whole() : pick(values)));
    const breaks = random() < 0.5 ? 0 : 1 + Math.floor(random() * 4);
    for (let index = 0; index < breaks; index++) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
    const cut = random() < 0.1 ? bytes.subarray(0, Math.floor(random() * bytes.length)) : bytes;
    return Buffer.concat([cut, Buffer.from("\n")]);
  });
  const { status, stderr, answers } = await talk([...lines, request("a", "status_vm", { vm_id: "vm-aaaaaaaa" }), request("b", "status_vm")]);
  expect([status, stderr]).toEqual([0, ""]);
  expect(answers.length).toBeGreaterThan(2000);
  for (const answer of answers) {
    expect(answer.jsonrpc).toBe("2.0");
    expect(answer.id === null || typeof answer.id === "string" || Number.isSafeInteger(answer.id)).toBe(true);
    expect("result" in answer).not.toBe("error" in answer);
    if (answer.error === undefined) continue;
    expect([-32700, -32600, -32601, -32602, -32000]).toContain(answer.error.code); // -32603 would be a fault of ours
    expect(answer.error.message).toMatch(/\S/);
    expect(answer.error.message.length).toBeLessThan(1000);
    expect(answer.error.data.code).toMatch(/^[A-Z_]+$/);
  }
  expect(new Set(answers.map((each) => each.error?.code))).toEqual(new Set([undefined, -32700, -32600, -32601, -32602, -32000]));
});

test("told to end, it ends, with the status of whoever is ended by that signal", async () => {
  const child = spawn(process.execPath, [main, "pipe"], { env: { PATH: process.env["PATH"]!, HOME: home } });
  child.stdin.write(request(1, "list_vms"));
  child.stdout.once("data", () => child.kill("SIGTERM"));
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(143);
});

test("a client whose output is closed is gone", async () => {
  const child = spawn(process.execPath, [main, "pipe"], { env: { PATH: process.env["PATH"]!, HOME: home } });
  child.stdout.destroy();
  child.stdin.on("error", () => {});
  child.stdin.write(request(1, "list_vms"));
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(141);
});

/** A linear congruential generator: the same lines at every run. */
function lcg(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
}
