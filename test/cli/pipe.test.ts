// The pipe within this process, with stand-ins for what would start a VM.
import { readFileSync } from "node:fs";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { Lines } from "../../src/cli/pipe/lines.js";
import { methods, type Call, type Method } from "../../src/cli/pipe/methods.js";
import { servePipe } from "../../src/cli/pipe/serve.js";

test("lines, whole and split at every byte", () => {
  const bytes = Buffer.from("a\n\nbcd\n12345678\n123456789\nend\nrest");
  const expected = ["a", "", "bcd", "12345678", "tooLong", "end"];
  for (let size = 1; size <= bytes.length; size++) {
    const lines = new Lines(8);
    const got: string[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      lines.add(bytes.subarray(at, at + size));
      for (let line = lines.take(); line !== undefined; line = lines.take()) got.push(line.toString());
    }
    expect({ size, got, waiting: lines.bytes }).toEqual({ size, got: expected, waiting: 4 });
  }
});

test("a line that never ends is not kept", () => {
  const lines = new Lines(1000);
  let told = 0;
  for (let index = 0; index < 1000; index++) {
    lines.add(Buffer.alloc(100, 120));
    if (lines.take() === "tooLong") told++;
    expect(lines.bytes).toBeLessThanOrEqual(1000);
  }
  lines.add(Buffer.from("\nnext\n"));
  expect([told, String(lines.take()), lines.bytes]).toEqual([1, "next", 0]);
});

test("the table of docs/pipe.md is the code's", () => {
  const page = readFileSync(new URL("../../docs/pipe.md", import.meta.url), "utf8");
  const names = (cell: string) => [...cell.matchAll(/`([a-z_]+)`/g)].map((match) => match[1]);
  const rows = [...page.matchAll(/^\| `.*$/gm)].map(([row]) => row.split("|").slice(1, 4)).map(([name, required, optional]) => [names(name!)[0], names(required!), names(optional!)]);
  expect(rows.slice(0, methods.size)).toEqual([...methods].map(([name, { argumentNames }]) => [name, argumentNames.required, argumentNames.optional]));
});

test.each([
  ["create_vm", [], "params is []; it is an object with arguments by their names.", "create_vm needs environment and takes vcpu_count, mem_mib, disk_mib, ttl_seconds, network, allow_host_compat, allow_hosts, deny_hosts, allow_nets, publish, secrets."],
  ["create_vm", {}, "environment is missing; it is a string of Unicode characters.", /^create_vm needs/],
  ["create_vm", { environment: "x", mem_mb: 5 }, 'create_vm has no argument "mem_mb".', /^Did you mean mem_mib\? create_vm needs/],
  ["create_vm", { environment: "x", memMib: 5 }, 'create_vm has no argument "memMib".', /^Did you mean mem_mib\?/],
  ["create_vm", { environment: "x", command: "y" }, 'create_vm has no argument "command".', /^create_vm needs/],
  ["create_vm", { environment: 5 }, "environment is 5; it is a string of Unicode characters.", "Give such a environment."],
  ["create_vm", { environment: "x", mem_mib: "512" }, 'mem_mib is "512"; it is a whole number from 128 to 65536.', "Give such a mem_mib, or leave it out."],
  ["create_vm", { environment: "x", vcpu_count: null }, "vcpu_count is null; it is a whole number from 1 to 32.", /./],
  ["create_vm", { environment: "x", network: 1 }, "network is 1; it is true or false.", /./],
  ["create_vm", { environment: "x", allow_hosts: "a.example" }, 'allow_hosts is "a.example"; it is an array of strings.', /./],
  ["audit_vm", { vm_id: "x", last: -1 }, "last is -1; it is a whole number.", /./],
  ["run_in_vm", { environment: "x", command: ["a", 1] }, 'command is ["a",1]; it is a string for the guest\'s login shell, or an array of strings that is executed as it is.', /./],
  ["run_in_vm", { environment: "x", command: "a\ud800" }, /^command is /, /./],
  ["run_in_vm", { environment: "x", command: "a", env: { A: 1 } }, 'env is {"A":1}; it is an object whose names and values are strings.', /./],
  ["run_in_vm", JSON.parse('{"__proto__":{"environment":"x"}}'), 'run_in_vm has no argument "__proto__".', /./],
  ["status_vm", { vm_id: ["vm-aaaaaaaa"] }, /^vm_id is \["vm-aaaaaaaa"\]; it is a string/, /./],
  ["list_vms", { all: true }, 'list_vms has no argument "all".', "list_vms takes no arguments."],
  ["create_vm", { environment: "x", ["e\u001b[2J".repeat(100)]: 1 }, /^create_vm has no argument "e\\u001b.{80,110}…\.$/, /./],
])("arguments: %s %j", (name, given, message, hint) => {
  let error: unknown;
  try {
    methods.get(name)!.parse(given);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({ code: "INVALID_ARGUMENT", message: message instanceof RegExp ? (expect.stringMatching(message) as string) : message, hint: hint instanceof RegExp ? (expect.stringMatching(hint) as string) : hint });
});

test("arguments become core's, and nothing is added", () => {
  expect(methods.get("run_in_vm")!.parse({ environment: "e", command: ["a", "é"], mem_mib: 512, allow_host_compat: true, env: { A: "b", __proto: "" } })).toEqual({ environment: "e", command: ["a", "é"], memMib: 512, allowHostCompat: true, env: { A: "b", __proto: "" } });
});

test("what is no request", async () => {
  const pipe = serve({ echo: async (given) => given });
  const lines = [
    "{", '"x"', "[]", "null", "{}", '{"jsonrpc":"1.0","id":1,"method":"echo"}', '{"jsonrpc":"2.0","id":2}', '{"jsonrpc":"2.0","id":null,"method":"echo"}', '{"jsonrpc":"2.0","id":1.5,"method":"echo"}',
    '{"jsonrpc":"2.0","id":3,"method":"ecko"}', '{"jsonrpc":"2.0","id":4,"method":"constructor"}', '{"jsonrpc":"2.0","id":5,"method":"cancel","params":{"id":1}}', '{"jsonrpc":"2.0","method":"nothing"}', '{"jsonrpc":"2.0","method":"cancel"}', "", "  ",
  ];
  pipe.input.write(`${lines.join("\n")}\n`);
  pipe.input.write(Buffer.from([0x22, 0xff, 0x22, 0x0a]));
  pipe.input.write('{"jsonrpc":"2.0","id":"last","method":"echo","params":{"a":1}}\n');
  expect((await pipe.take(14)).map(({ id, error, result }) => [id, error?.code ?? result])).toEqual([
    [null, -32700], [null, -32600], [null, -32600], [null, -32600], [null, -32600], [1, -32600], [2, -32600], [null, -32600], [null, -32600], [3, -32601], [4, -32601], [5, -32600], [null, -32700], ["last", { a: 1 }],
  ]);
  await pipe.end();
});

test("requests run at once and are answered as they finish; errors carry code and hint; news carry the request's id", async () => {
  const ends = new Map<string, (value: string) => void>();
  const pipe = serve({
    wait: ({ name }: { name: string }) => new Promise((resolve) => ends.set(name, resolve)),
    fail: () => Promise.reject(new PyroError("NOT_FOUND", "no", { hint: "look" })),
    range: () => Promise.reject(new PyroError("INVALID_ARGUMENT", "mem_mib is 1")),
    fault: () => Promise.reject(new TypeError("oops")),
    long: () => Promise.reject(new RangeError("Invalid string length")),
    news: async (_, call) => (call.onPhase({ phase: "exec", bootMs: 5 }), { bootMs: 5, absent: undefined }),
  });
  for (const [id, name] of ["a", "b", "c"].entries()) pipe.send(id, "wait", { name });
  pipe.send(0, "wait", { name: "again" });
  await pipe.take(1).then(([answer]) => expect(answer).toMatchObject({ id: null, error: { code: -32600, message: "A request with the id 0 is under way." } }));
  for (const name of ["c", "a", "b"]) ends.get(name)!(name);
  expect((await pipe.take(3)).map(({ id, result }) => [id, result])).toEqual([[2, "c"], [0, "a"], [1, "b"]]);
  for (const [id, name] of ["fail", "range", "fault", "long"].entries()) pipe.send(id, name);
  expect((await pipe.take(4)).map(({ error }) => error)).toEqual([
    { code: -32000, message: "no", data: { code: "NOT_FOUND", hint: "look" } },
    { code: -32602, message: "mem_mib is 1", data: { code: "INVALID_ARGUMENT" } },
    { code: -32603, message: "oops", data: { code: "INTERNAL" } },
    { code: -32000, message: "The answer is too long for one line.", data: { code: "UNSUPPORTED", hint: "Give a smaller capture_bytes." } },
  ]);
  pipe.send("n", "news");
  expect(await pipe.take(2)).toEqual([{ jsonrpc: "2.0", method: "progress", params: { boot_ms: 5, id: "n", phase: "exec" } }, { jsonrpc: "2.0", id: "n", result: { boot_ms: 5 } }]);
  await pipe.end();
});

test("cancel ends one request, the end of the input all of them, those not yet looked at included", async () => {
  const pipe = serve({ wait: (_, { signal }) => aborted(signal) });
  for (const id of [1, 2, 3]) pipe.send(id, "wait");
  pipe.input.write('{"jsonrpc":"2.0","method":"cancel","params":{"id":2}}\n{"jsonrpc":"2.0","method":"cancel","params":{"id":9}}\n');
  expect(await pipe.take(1)).toEqual([{ jsonrpc: "2.0", id: 2, error: { code: -32000, message: "Cancelled by the client.", data: { code: "CANCELLED" } } }]);
  await pipe.end();
  expect((await pipe.take(2)).map(({ id, error }) => [id, error?.message])).toEqual([[1, "The client went away."], [3, "The client went away."]]);
});

test("256 at once and no more", async () => {
  const pipe = serve({ wait: (_, { signal }) => aborted(signal) });
  for (let id = 0; id < 257; id++) pipe.send(id, "wait");
  expect(await pipe.take(1)).toMatchObject([{ id: 256, error: { code: -32000, data: { code: "DENIED" } } }]);
  await pipe.end();
});

test("a client that does not read: nothing more is begun, news are dropped, and its end is seen all the same", async () => {
  let begun = 0;
  const pipe = serve({ big: async (_, call) => (begun++, call.onPhase({ phase: "probe" }), "x".repeat(100_000)) }, 1000);
  pipe.send("first", "big");
  while (pipe.output.writableLength <= 90_000) await new Promise((resolve) => setImmediate(resolve));
  const before = pipe.output.writableLength;
  expect(before).toBeGreaterThan(90_000);
  for (let id = 0; id < 50; id++) pipe.send(id, "big");
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect([begun, pipe.output.writableLength]).toEqual([1, before]);
  expect((await pipe.take(3)).map(({ id, result }) => [id, result === undefined])).toEqual([[undefined, true], ["first", false], [undefined, true]]);
  expect(begun).toBeLessThan(50);
  await pipe.end();
  expect(pipe.output.destroyed).toBe(true);
});

test("a client that does not read and goes on writing: about one line is read ahead", async () => {
  const pipe = serve({ big: async () => "x".repeat(100_000) }, 1000);
  pipe.send("first", "big");
  while (pipe.output.writableLength <= 90_000) await new Promise((resolve) => setImmediate(resolve));
  const piece = Buffer.from(`${JSON.stringify({ jsonrpc: "2.0", id: "p", method: "big", params: { pad: "p".repeat(65_000) } })}\n`);
  let written = 0;
  while (!pipe.input.isPaused() && written < 64 << 20) {
    written += piece.length;
    pipe.input.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(written).toBeGreaterThan(8 << 20);
  expect(written).toBeLessThan(9 << 20);
  pipe.output.resume(); // from now on it reads
  await pipe.end();
});

test("an input that breaks is an error", async () => {
  const pipe = serve({});
  pipe.input.destroy(new Error("EIO: i/o error, read"));
  await expect(pipe.served).rejects.toMatchObject({ message: "Standard input can't be read: EIO: i/o error, read" });
});

interface Answer {
  jsonrpc: string;
  id: unknown;
  result?: unknown;
  error?: { code: number; message: string; data: object };
}

function serve(verbs: Record<string, (given: never, call: Call) => Promise<unknown>>, highWaterMark = 1 << 20) {
  const input = new PassThrough();
  const output = new PassThrough({ highWaterMark });
  const table = new Map(Object.entries(verbs).map(([name, run]): [string, Method] => [name, { argumentNames: { required: [], optional: [] }, parse: (given) => given, run: run as Method["run"] }]));
  const served = servePipe(input, output, table, new AbortController().signal);
  let text = "";
  return {
    input,
    output,
    served,
    send: (id: unknown, method: string, params: object = {}) => input.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`),
    /** The next lines, waited for. */
    async take(count: number): Promise<Answer[]> {
      while (text.split("\n").length <= count) {
        text += String((output.read() as Buffer | null) ?? "");
        if (text.split("\n").length <= count) await new Promise((resolve) => setImmediate(resolve));
      }
      const lines = text.split("\n");
      text = lines.slice(count).join("\n");
      return lines.slice(0, count).map((line) => JSON.parse(line) as Answer);
    },
    async end() {
      input.end();
      await served;
    },
  };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true }));
}
