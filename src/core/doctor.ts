/** What this host can do, found out by doing it: a guest is booted and runs a command. */
import { access, constants, statfs } from "node:fs/promises";
import { release } from "node:os";
import { findProgram } from "../base/child.js";
import { checkSignal } from "../base/deadline.js";
import { makeDirectory } from "../base/directory.js";
import { toPyroError, type PyroError } from "../base/error.js";
import { cacheDirectory, hostArchitecture, nativeProgram } from "../base/paths.js";
import { settings } from "../base/settings.js";
import { describeBuilder, diskUsage, listEnvironments, openEnvironment, type OpenEnvironment } from "../environments/index.js";
import { inspectConfinement, inspectKvm, inspectLimits, qemuVersion, type ConfinementPiece, type KvmVerdict } from "../vmm/index.js";
import { execInVm } from "./exec.js";
import { limits } from "./limits.js";
import { installedEntries } from "./mcp-clients/inspect.js";
import type { Network } from "./network.js";
import { accelerate, startVm, type Phase, type StartedVm } from "./start.js";

export interface DoctorCheck {
  name: string;
  ok: boolean;
  detail: string;
  /** The command or the step that mends it on this system. */
  fix?: string;
}

export interface DoctorReport {
  platform: string;
  runtime: "PASS" | "FAIL";
  kvm: KvmVerdict;
  /** What guests run under; absent when none runs. */
  accelerator?: "kvm" | "tcg";
  qemuVersion?: string;
  cache: { path: string; sizeBytes: number; freeBytes: number };
  capabilities: { vmBoot: boolean; guestExec: boolean; guestNetwork: boolean };
  checks: DoctorCheck[];
}

export interface DoctorOptions {
  signal?: AbortSignal;
  /** Called with what is being tried, before anything that takes longer than a moment. */
  onStep?: (step: string) => void;
}

export async function diagnose(options: DoctorOptions = {}): Promise<DoctorReport> {
  const checks: DoctorCheck[] = [];
  const check = async (name: string, work: () => Promise<string>): Promise<boolean> => {
    try {
      checks.push({ name, ok: true, detail: await work() });
      return true;
    } catch (error) {
      checkSignal(options.signal);
      const { message, hint } = toPyroError(error);
      checks.push({ name, ok: false, detail: message, ...(hint !== undefined && { fix: hint }) });
      return false;
    }
  };

  await check("platform", async () => hostArchitecture().platform);
  await check("programs", async () => (nativeProgram("pyro-guest"), nativeProgram("pyro-keeper"), "guest program and keeper are there"));
  let version: string | undefined;
  await check("qemu", async () => `QEMU ${(version = (await qemuVersion(options.signal)).version)}`);
  await check("environment builder", describeBuilder);
  await check("lz4", () => findProgram("lz4"));
  await check("mke2fs", () => findProgram("mke2fs"));
  await check("cache", checkCache);
  checks.push(await describeConfinement());
  checks.push(await describeLimits());
  checks.push(...(await describeClients()));

  let kvm: KvmVerdict = { ...(await inspectKvm()), guestRan: undefined };
  let accelerator: "kvm" | "tcg" | undefined;
  let environment: OpenEnvironment | undefined;
  const found = await check("environment", async () => {
    options.onStep?.("checking what is installed");
    environment = await anyInstalled();
    return `${environment.name}, kernel ${environment.kernelVersion}`;
  });
  if (found) {
    options.onStep?.("trying KVM");
    const chosen = await check("accelerator", async () => {
      const choice = await accelerate(environment!, { ...options, probeAgain: true });
      kvm = choice.kvm;
      accelerator = choice.accelerator;
      return settings.accelerator() === "auto" ? choice.accelerator : `${choice.accelerator}, by PYRO_ACCELERATOR`;
    });
    if (!chosen) accelerator = undefined;
  }
  let network: Promise<string> | undefined;
  const onNetwork = (found: Promise<string>) => {
    network = found;
    found.catch(() => {});
  };
  const booted = accelerator !== undefined && (await check("guest", async () => {
    const { bootMs, ...started } = await bootGuest(environment!, accelerator!, options, onNetwork);
    accelerator = started.accelerator;
    if (started.kvmReason !== undefined) kvm = { ...kvm, reason: started.kvmReason };
    return `booted under ${accelerator} in ${bootMs} ms and ran a command`;
  }));
  if (!booted) accelerator = undefined;
  const networked = network !== undefined && (await check("network", () => network!));
  const path = cacheDirectory();
  return {
    platform: `${process.platform}/${process.arch} ${release()}, Node ${process.versions.node}`,
    runtime: booted ? "PASS" : "FAIL",
    kvm,
    ...(accelerator !== undefined && { accelerator }),
    ...(version !== undefined && { qemuVersion: version }),
    cache: { path, sizeBytes: await diskUsage([path]), freeBytes: await freeBytes(path) },
    capabilities: { vmBoot: booted, guestExec: booted, guestNetwork: booted && networked },
    checks,
  };
}

const pieceNames: Record<ConfinementPiece["name"], string> = {
  privileges: "without privileges",
  user: "as a user of its own",
  namespaces: "in namespaces of its own",
  files: "without this host's files",
  calls: "with filtered system calls",
};

/** VMs run without some of it, too, but then less stands between a guest that took its monitor over and the user: that fails here, loudly. */
export async function describeConfinement(inspect = inspectConfinement, isRoot = process.getuid?.() === 0): Promise<DoctorCheck> {
  const name = "confinement";
  try {
    const pieces = (await inspect()).filter((each) => isRoot || each.name !== "user"); // nobody else could give it another user
    const had = pieces.filter((each) => each.had).map((each) => `${pieceNames[each.name]}${each.how === undefined ? "" : ` (by ${each.how})`}`);
    const missing = pieces.filter((each) => !each.had).map((each) => `not ${pieceNames[each.name]} (${each.why})`);
    const detail = `QEMU runs ${[...had, ...missing].join(", ")}`;
    return { name, ok: missing.length === 0, detail, ...(missing.length > 0 && { fix: confinementFix(pieces) }) };
  } catch (error) {
    return { name, ok: false, detail: toPyroError(error).message };
  }
}

function confinementFix(pieces: readonly ConfinementPiece[]): string {
  if (pieces.some((each) => each.name === "calls" && !each.had)) return "a kernel from 5.12 on, and outside of containers that forbid seccomp filters with a listener";
  return "let users make namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in a container, the rights to make them";
}

/** VMs run without them, too, so there is nothing to fail. */
async function describeLimits(): Promise<DoctorCheck> {
  const { files, detail } = await inspectLimits();
  if (files.length > 0) return { name: "host limits", ok: true, detail: `each VM gets a control group in ${detail}: ${files.join(", ")}` };
  const cgroups = !detail.startsWith("this host has no cgroup");
  return { name: "host limits", ok: true, detail: `none by control groups: ${detail}`, ...(cgroups && { fix: "systemd-run --user --scope -p Delegate=yes pyro …, to have them" }) };
}

/** Where an agent would look for pyro's MCP server, and whether what it would start is there. VMs run without. */
async function describeClients(): Promise<DoctorCheck[]> {
  const entries = await installedEntries(process.cwd());
  if (entries.length === 0) return [{ name: "mcp clients", ok: true, detail: "pyro is configured in none", fix: "pyro mcp install claude-code (or another, see `pyro mcp install --help`), to have it" }];
  return entries.map(({ client, scope, name, file, command, problem }) => ({
    name: `mcp client ${client}`,
    ok: problem === undefined,
    detail: problem === undefined ? `${file} has ${name}: ${command}` : `${file} has ${name}, but ${problem}`,
    ...(problem !== undefined && { fix: `pyro mcp install ${client}${scope === "user" ? "" : ` --scope ${scope}`}${name === "pyro" ? "" : ` --name ${name}`}` }),
  }));
}

/**
 * What a guest came up under in the end, and why that is not KVM. It has a network, and if that can't be had, none; `onNetwork` is told once whether it has one
 * that works.
 */
async function bootGuest(environment: OpenEnvironment, accelerator: "kvm" | "tcg", options: DoctorOptions, onNetwork: (network: Promise<string>) => void): Promise<{ bootMs: number; accelerator: "kvm" | "tcg"; kvmReason?: string }> {
  let kvmReason: string | undefined;
  const onPhase = (phase: Phase) => void ("kvmReason" in phase && (kvmReason = phase.kvmReason));
  options.onStep?.(`booting a guest under ${accelerator.toUpperCase()}`);
  const signal = options.signal !== undefined && { signal: options.signal };
  const request = { environment: environment.name, vcpuCount: 1, memMib: 256, ttlSeconds: 180 };
  const start = (network: boolean) => startVm({ ...request, ...(network && { network: nowhere }) }, { cold: true, onPhase, ...signal });
  const vm = await start(true).catch((error: unknown) => {
    checkSignal(options.signal);
    onNetwork(Promise.reject(error as Error));
    return start(false);
  });
  try {
    const result = await execInVm(vm, environment.name, { command: ["/bin/true"], timeoutSeconds: limits.timeoutSeconds.default, captureBytes: limits.captureBytes.min }, options);
    if (result.exitCode !== 0) throw new Error(`/bin/true in the guest ended with status ${result.exitCode}`);
    if (vm.gateway !== undefined) {
      const asking = askName(vm, environment.name, options);
      onNetwork(asking);
      await asking.catch(() => {});
    }
    return { bootMs: result.bootMs, accelerator: vm.accelerator, ...(kvmReason !== undefined && { kvmReason }) };
  } finally {
    await vm.end();
  }
}

const nowhere: Network = { policy: { mode: "allow_list", allowHosts: [], denyHosts: [], allowNets: [] }, publish: [], secrets: [] };

/** That the gateway was asked is the proof that the guest reaches it. Nothing is allowed, so nobody else is asked. */
async function askName(vm: StartedVm, environment: string, options: DoctorOptions): Promise<string> {
  const command = "getent hosts pyro.invalid || nslookup pyro.invalid";
  await execInVm(vm, environment, { command: ["/bin/sh", "-c", command], timeoutSeconds: limits.timeoutSeconds.default, captureBytes: limits.captureBytes.min }, options);
  const { counters } = await vm.gateway!.control.info();
  if (counters.dns_queries === 0) throw new Error("the guest's gateway runs, and a name that the guest asked for did not reach it");
  return "a guest's question reached its gateway";
}

async function anyInstalled(): Promise<OpenEnvironment> {
  let broken: PyroError | undefined;
  for (const each of await listEnvironments()) {
    if (!each.installed) continue;
    try {
      const environment = await openEnvironment(each.name);
      if (environment !== undefined) return environment;
    } catch (error) {
      broken ??= toPyroError(error);
    }
  }
  if (broken !== undefined) throw broken;
  throw Object.assign(toPyroError(new Error("No environment is installed, so there is no kernel to boot a guest with.")), { hint: "pyro env pull debian:12" });
}

async function checkCache(): Promise<string> {
  const path = cacheDirectory();
  await makeDirectory(path);
  await access(path, constants.W_OK);
  return path;
}

async function freeBytes(path: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  } catch {
    return 0;
  }
}
