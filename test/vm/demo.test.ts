// The demonstrations on real VMs. In `demo ollama` only the model is a stand-in.
import { afterAll, afterEach, expect, test } from "vitest";
import { calls, ollamaStandIn, says, type StandIn } from "../core/ollama-stand-in.js";
import { collect, eventually, leftovers, pyro, startPyro } from "./pyro.js";

const home = process.env["HOME"]!;
const opened: StandIn[] = [];
afterEach(async () => {
  for (const each of opened.splice(0)) await each.close();
});
afterAll(async () => {
  await eventually(() => leftovers(home).length === 0); // the last one's keeper is still at it for a moment
  expect(leftovers(home)).toEqual([]);
});

test("the tour: plain lines, each with what was measured, and everything in it happened", async () => {
  const { status, stdout, stderr } = await pyro(["demo"]);
  expect(status).toBe(0);
  expect(stdout).not.toContain("\u001b");
  expect([...stdout.matchAll(/^(\S.*?): /gm)].map((match) => match[1])).toEqual(["Environments", "One command, one VM", "A machine of its own", "5 more of them", "The worst command", "A VM that stays", "The same for an agent, over MCP"]);
  expect(stdout).toMatch(/^ {2}\| git version 2\.39\.\d+$/m);
  expect(stdout).toMatch(/^ {2}First output [\d.]+ m?s after the call, with a VM made for it; all gone after [\d.]+ m?s\. It ran under (KVM|software emulation)/m);
  expect(stdout).toMatch(/^ {2}kernel +\S+ +6\.1\.0-\d+-cloud-amd64$/m);
  expect(new Set([...stdout.matchAll(/^ {2}(vm-[0-9a-z]{8}) {2}ready/gm)].map((match) => match[1])).size).toBe(5);
  expect(stdout).toMatch(/git in that VM ends with status 12[67]: there is nothing left to run\.$/m);
  expect(stdout).toMatch(/^ {2}This host: all there\. A fresh VM, [\d.]+ m?s later: git version 2\.39\.\d+$/m);
  expect(stdout).toMatch(/^ {2}The note said: kept$/m);
  expect(stdout).toContain('"exit_code":0,"stdout":"git version 2.39');
  expect(stderr).toMatch(/\[demo\] result=ok vms=10 duration_ms=\d+\n$/);
});

test.each([
  ["while a fork starts", "5 more of them"],
  ["while a VM with a record boots", "stop: its disk stays"],
])("Ctrl-C %s leaves nothing", async (_when, said) => {
  const child = startPyro(["demo"]);
  let shown = "";
  let told = false;
  child.stdout!.on("data", (chunk: Buffer) => {
    shown += String(chunk);
    if (!told && shown.includes(said)) told = child.kill("SIGINT");
  });
  const { status, stderr } = await collect(child);
  expect(status).toBe(130);
  expect(stderr).toContain("error: Ended by SIGINT.");
  expect(await eventually(() => leftovers(home).length === 0)).toBe(true);
});

test("a model's calls run in VMs, its mistakes come back to it, and its answer is the end", async () => {
  const standIn = await ollamaStandIn(
    { ...calls({ arguments: { environment: "debian:12", command: "git --version; exit 3" } }), pieceBytes: 5 } as Parameters<typeof ollamaStandIn>[0],
    calls({ arguments: { environment: "debian:13", command: "true" } }),
    says("Git ", "2.39."),
  );
  opened.push(standIn);
  const { status, stdout, stderr } = await pyro(["demo", "ollama", "--model", "stand-in", "--prompt", "Which Git?"], { env: { OLLAMA_HOST: standIn.host } });
  expect(status).toBe(0);
  expect(stdout).toBe("Git 2.39.\n");
  const lines = stderr.trimEnd().split("\n").filter((line) => !line.includes("phase="));
  expect(lines.slice(0, 3)).toEqual(['[demo] prompt="Which Git?"', "[demo] round=1 model=stand-in", '[demo] round=1 tool=vm_run arguments={"environment":"debian:12","command":"git --version; exit 3"}']);
  expect(lines[3]).toMatch(/^\[demo\] round=1 exit_code=3 result=\{.*"stdout":"git version 2\.39/);
  expect(lines[6]).toMatch(/^\[demo\] round=2 error result=\{"error":\{"code":"NOT_FOUND"/);
  expect(lines.at(-1)).toMatch(/^\[demo\] result=answered rounds=3 tool_calls=2 model=stand-in duration_ms=\d+$/);
  expect(standIn.requests[0]!.messages[1]).toEqual({ role: "user", content: "Which Git?" });
  const result = JSON.parse(standIn.requests[1]!.messages.at(-1)!.content) as Record<string, unknown>;
  expect(result).toMatchObject({ execution_mode: "guest", exit_code: 3, timed_out: false });
  expect(result["stdout"]).toMatch(/^git version 2\.39\.\d+\n$/);
});
