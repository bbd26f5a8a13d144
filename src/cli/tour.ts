/** What `pyro demo` shows: real VMs, and how long each thing took, measured here and now. */
import { existsSync } from "node:fs";
import { homedir, hostname, release } from "node:os";
import { performance } from "node:perf_hooks";
import { Writable } from "node:stream";
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { printJson } from "../base/json.js";
import { attachVm, createVm, deleteVm, execInVm, limits, listEnvironments, openVm, runInVm, startVm, stopVm, warmEnvironment, type ExecResult, type OpenedVm, type Phase } from "../core/index.js";
import { phaseLine } from "./phases.js";
import type { CommandContext } from "./program.js";
import { formatTable } from "./render.js";

const environment = "debian:12";
/** Should all else fail to end them. */
const ttlSeconds = 300;
const command = ["git", "--version"] as const;
const forkCount = 5;
/** To remove all of it takes longer than anybody wants to watch, and it can't run anything after a moment. */
const destructionSeconds = 3;

export async function tour(context: CommandContext): Promise<void> {
  const begin = performance.now();
  const stage: Stage = { ...context, vms: 0 };
  await environments(stage);
  const result = await oneCommand(stage);
  await isolation(stage);
  await forks(stage);
  await destruction(stage);
  await life(stage);
  agents(stage, result);
  context.output.line(`[demo] result=ok vms=${stage.vms} duration_ms=${Math.round(performance.now() - begin)}`);
}

interface Stage extends CommandContext {
  /** How many there were. */
  vms: number;
}

async function environments(stage: Stage): Promise<void> {
  const { output, interrupts: { signal } } = stage;
  heading(stage, "Environments", "what VMs are made of, from Debian's signed archive");
  const all = await listEnvironments({ signal });
  output.result(formatTable(all.map((each) => [`  ${each.name}`, each.installed ? "installed" : "-", each.description])));
  const { made } = await warmEnvironment({ environment }, { signal, onPhase: phases(stage) });
  say(stage, made ? "The first VM has been booted and frozen; all that follow are forks of it." : "A VM is booted and frozen already; all that follow are forks of it.");
}

async function oneCommand(stage: Stage): Promise<ExecResult> {
  heading(stage, "One command, one VM", `pyro run ${environment} -- ${command.join(" ")}`);
  let firstMs: number | undefined;
  const begin = performance.now();
  const first = new Writable({
    write: (_chunk, _encoding, done) => {
      firstMs ??= performance.now() - begin;
      done();
    },
  });
  const result = await runInVm({ environment, command, ttlSeconds }, { signal: stage.interrupts.signal, stdout: first });
  stage.vms++;
  show(stage, result);
  say(stage, `First output ${ms(firstMs ?? 0)} after the call, with a VM made for it; all gone after ${ms(performance.now() - begin)}. It ran under ${result.accelerator === "kvm" ? "KVM" : "software emulation (TCG)"}.`);
  return result;
}

async function isolation(stage: Stage): Promise<void> {
  heading(stage, "A machine of its own", "the same questions here and there");
  await inVm(stage, async (vm) => {
    const home = homedir();
    const lines = await ask(stage, vm, ["sh", "-c", 'uname -r; hostname; ls /sys/class/net | grep -vx lo | head -1; ls -d "$1" 2>/dev/null || echo; ls -d /proc/[0-9]* | wc -l', "sh", home]);
    const [kernel = "", name = "", card = "", found = "", processes = ""] = lines.split("\n");
    stage.output.result(formatTable([
      ["  ", "on this host", "in the VM"],
      ["  kernel", release(), kernel],
      ["  name", hostname(), name],
      ["  network", "yours", card === "" ? "none but lo" : `${card}, which leads nowhere`],
      [`  ${home}`, "your files", found === "" || home === "/root" ? "not yours" : "there"],
      ["  processes", "yours", `${processes}, all its own`],
    ]));
  });
}

async function forks(stage: Stage): Promise<void> {
  heading(stage, `${forkCount} more of them`, "each a fork of the frozen one, with a name and randomness of its own");
  for (let each = 0; each < forkCount; each++) {
    const begin = performance.now();
    await inVm(stage, async (vm) => {
      const ready = performance.now() - begin;
      const random = await ask(stage, vm, ["sh", "-c", "head -c 4 /dev/urandom | od -An -tx1"]);
      say(stage, `${vm.vmId}  ready ${ms(ready).padStart(7)}  answered ${ms(performance.now() - begin).padStart(7)}  random ${harmlessLine(random, 40)}`);
    });
  }
}

async function destruction(stage: Stage): Promise<void> {
  heading(stage, "The worst command", "rm -rf --no-preserve-root /");
  await inVm(stage, async (vm) => {
    const { timedOut } = await exec(stage, vm, ["rm", "-rf", "--no-preserve-root", "/"], destructionSeconds);
    const after = await exec(stage, vm, ["git", "--version"]);
    say(stage, `After ${timedOut ? `${destructionSeconds} s of it` : "it"} git in that VM ends with status ${after.exitCode}${after.exitCode === 0 ? ", still" : ": there is nothing left to run"}.`);
  });
  // Whatever this program is made of has to be there, or nobody reads the sentence.
  if (![homedir(), process.execPath, process.argv[1]!].every((path) => existsSync(path))) throw new PyroError("INTERNAL", "Something of this host is gone.");
  const begin = performance.now();
  await inVm(stage, async (vm) => {
    const version = await ask(stage, vm, ["git", "--version"]);
    say(stage, `This host: all there. A fresh VM, ${ms(performance.now() - begin)} later: ${harmlessLine(version, 80)}`);
  });
}

async function life(stage: Stage): Promise<void> {
  const { signal } = stage.interrupts;
  heading(stage, "A VM that stays", "pyro vm create, start, exec, stop, start, delete");
  const step = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    const begin = performance.now();
    const result = await work();
    say(stage, `${what.padEnd(38)} ${ms(performance.now() - begin).padStart(7)}`);
    return result;
  };
  const { vmId } = await step("create", () => createVm({ environment, ttlSeconds }, { signal }));
  stage.vms++;
  let deleted = false;
  try {
    await step("start", () => startVm(vmId, { signal }));
    await step("exec: echo kept >/root/note", () => attached(stage, vmId, ["sh", "-c", "echo kept >/root/note"]));
    await step("stop: its disk stays", () => stopVm(vmId, { signal }));
    await step("start: booted from its own disk", () => startVm(vmId, { signal }));
    const note = await step("exec: cat /root/note", () => attached(stage, vmId, ["cat", "/root/note"]));
    await step("delete", () => deleteVm(vmId, { signal }));
    deleted = true;
    say(stage, `The note said: ${harmlessLine(note, 80)}`);
  } finally {
    if (!deleted) await deleteVm(vmId);
  }
}

function agents(stage: Stage, { exitCode, stdout, durationMs, bootMs }: ExecResult): void {
  heading(stage, "The same for an agent, over MCP", "pyro mcp install claude-code (or codex, cursor, opencode, vscode, claude-desktop)");
  const call = { method: "tools/call", params: { name: "vm_run", arguments: { environment, command } } };
  say(stage, `it sends  ${JSON.stringify(call)}`);
  say(stage, `and gets  ${JSON.stringify(JSON.parse(printJson({ exitCode, stdout, durationMs, bootMs })))}`);
  stage.output.result("\n");
}

async function inVm<T>(stage: Stage, use: (vm: OpenedVm) => Promise<T>): Promise<T> {
  const vm = await openVm({ environment, ttlSeconds }, { signal: stage.interrupts.signal, onPhase: phases(stage, true) });
  stage.vms++;
  try {
    return await use(vm);
  } finally {
    await vm.close();
  }
}

async function attached(stage: Stage, vmId: string, command: readonly string[]): Promise<string> {
  const vm = await attachVm(vmId, { signal: stage.interrupts.signal });
  try {
    return await ask(stage, vm, command);
  } finally {
    await vm.close();
  }
}

function exec(stage: Stage, vm: OpenedVm, command: readonly string[], timeoutSeconds: number = limits.timeoutSeconds.default): Promise<ExecResult> {
  return execInVm(vm, environment, { command, timeoutSeconds, captureBytes: limits.captureBytes.min }, { signal: stage.interrupts.signal });
}

/** What a command that has to succeed says. */
async function ask(stage: Stage, vm: OpenedVm, command: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await exec(stage, vm, command);
  if (exitCode !== 0) throw new PyroError("INTERNAL", `${command.join(" ")} in the VM ended with status ${exitCode}: ${harmlessLine(stderr.trim(), 200)}`);
  return stdout.trim();
}

function heading({ output }: Stage, title: string, line: string): void {
  output.result(`\n${output.bold(title)}: ${line}\n`);
}

function say({ output }: Stage, text: string): void {
  output.result(`  ${text}\n`);
}

function show(stage: Stage, { stdout }: ExecResult): void {
  for (const line of stdout.trimEnd().split("\n")) say(stage, `${stage.output.green("|")} ${harmlessLine(line, 120)}`);
}

/** Only what takes long: that a VM starts is what the text is about. */
function phases({ output }: Stage, quiet = false): (phase: Phase) => void {
  return (phase) => {
    if (!quiet && phase.phase !== "start" && phase.phase !== "exec") phaseLine(output, "demo", environment, phase);
  };
}

function ms(value: number): string {
  return value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}
