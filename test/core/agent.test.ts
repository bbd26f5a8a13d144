import { afterEach, expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { runAgent } from "../../src/core/agent.js";
import { readVmRunArguments, vmRunTool } from "../../src/core/vm-run-tool.js";
import { calls, ollamaStandIn, says, type StandIn } from "./ollama-stand-in.js";

let standIn: StandIn;
afterEach(() => standIn?.close());

const vmRun = { environment: "debian:12", command: "true" };
const request = { model: "some:1b", prompt: "what is it?" };

test("a call is made and answered, then there is an answer", async () => {
  standIn = await ollamaStandIn(calls({ arguments: vmRun }, { arguments: { ...vmRun, command: ["false"] } }), says("It is ", "so."));
  const made: unknown[] = [];
  const seen: string[] = [];
  const result = await runAgent(request, {
    address: standIn.address,
    callTool: async (given) => {
      made.push(given);
      return { ok: true, text: `result ${made.length}`, exitCode: 0 };
    },
    onRound: (round) => seen.push(`round ${round}`),
    onCall: (round, { name }) => seen.push(`call ${round} ${name}`),
    onResult: (round, { text }) => seen.push(`result ${round} ${text}`),
    onText: (piece) => seen.push(piece),
  });
  expect(result).toEqual({ result: "answered", answer: "It is so.", rounds: 2, toolCalls: 2 });
  expect(made).toEqual([vmRun, { environment: "debian:12", command: ["false"] }]);
  expect(seen).toEqual(["round 1", "call 1 vm_run", "result 1 result 1", "call 1 vm_run", "result 1 result 2", "round 2", "It is ", "so."]);
  expect(standIn.requests[0]!.tools.map((each) => each.function.name)).toEqual(["vm_run"]);
  expect(standIn.requests[1]!.messages.slice(1)).toEqual([
    { role: "user", content: "what is it?" },
    { role: "assistant", content: "", tool_calls: [{ function: { name: "vm_run", arguments: vmRun } }, { function: { name: "vm_run", arguments: { environment: "debian:12", command: ["false"] } } }] },
    { role: "tool", tool_name: "vm_run", content: "result 1" },
    { role: "tool", tool_name: "vm_run", content: "result 2" },
  ]);
});

test("wrong arguments and unknown tools go back to the model as errors", async () => {
  standIn = await ollamaStandIn(calls({ arguments: { environment: "debian:12", comand: "true" } }, { name: "shell", arguments: {} }, { arguments: { ...vmRun, mem_mib: 1 } }, { arguments: "not JSON" }), says("sorry"));
  expect(await runAgent(request, { address: standIn.address })).toEqual({ result: "answered", answer: "sorry", rounds: 2, toolCalls: 4 });
  expect(standIn.requests[1]!.messages.slice(3).map((each) => JSON.parse(each.content) as unknown)).toEqual([
    { error: { code: "INVALID_ARGUMENT", message: 'There is no argument "comand". Did you mean command?', hint: "vm_run takes environment, command, vcpu_count, mem_mib, timeout_seconds." } },
    { error: { code: "NOT_FOUND", message: 'There is no tool "shell".', hint: "There is vm_run." } },
    { error: { code: "INVALID_ARGUMENT", message: "mem_mib is 1; it is a whole number from 128 to 65536.", hint: "Give a mem_mib from 128 to 65536, or leave it out for 1024." } },
    { error: { code: "INVALID_ARGUMENT", message: 'The arguments are "not JSON"; they are an object.', hint: "vm_run takes environment, command, vcpu_count, mem_mib, timeout_seconds." } },
  ]);
});

test("twelve rounds and no more; a model that says nothing", async () => {
  standIn = await ollamaStandIn(calls({ name: "x", arguments: {} }));
  expect(await runAgent(request, { address: standIn.address })).toEqual({ result: "out_of_rounds", answer: "", rounds: 12, toolCalls: 12 });
  expect(standIn.requests).toHaveLength(12);
  await standIn.close();
  standIn = await ollamaStandIn(says(" \n"));
  expect(await runAgent(request, { address: standIn.address })).toEqual({ result: "silent", answer: " \n", rounds: 1, toolCalls: 0 });
});

test("what the model can't mend ends it, and what was done is known", async () => {
  standIn = await ollamaStandIn(calls({ arguments: vmRun }));
  const progress = { rounds: 0, toolCalls: 0 };
  const callTool = async () => Promise.reject(new PyroError("HOST_MISSING", "no QEMU"));
  await expect(runAgent(request, { address: standIn.address, callTool }, progress)).rejects.toMatchObject({ code: "HOST_MISSING" });
  expect(progress).toEqual({ rounds: 1, toolCalls: 1 });
});

test("the tool's schema", () => {
  expect(vmRunTool.parameters.required).toEqual(["environment", "command"]);
  expect(Object.keys(vmRunTool.parameters.properties)).toEqual(["environment", "command", "vcpu_count", "mem_mib", "timeout_seconds"]);
  expect(vmRunTool.parameters.properties.timeout_seconds).toEqual({ type: "integer", minimum: 1, maximum: 86_400, default: 30, description: "Time for the command, seconds." });
});

test("arguments as models send them", () => {
  expect(readVmRunArguments({ environment: "debian:12", command: "ls", timeout_seconds: 5, mem_mib: null })).toEqual({ environment: "debian:12", command: "ls", timeoutSeconds: 5 });
  expect(readVmRunArguments('{"environment":"debian:12","command":["ls","-l"]}')).toEqual({ environment: "debian:12", command: ["ls", "-l"] });
  for (const wrong of [null, [], 5, {}, { environment: 5, command: "x" }, { environment: "x" }, { environment: "x", command: [5] }, { ...vmRun, network: true }, { ...vmRun, allow_host_compat: true }, { ...vmRun, vcpu_count: "2" }]) {
    expect(() => readVmRunArguments(wrong), JSON.stringify(wrong)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }) as Error);
  }
});
