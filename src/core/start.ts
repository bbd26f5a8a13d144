/** From a name to a VM that answers: environment, accelerator, a fork of a frozen VM (or, where that fails, a boot), hello, identity. */
import { randomBytes } from "node:crypto";
import { performance } from "node:perf_hooks";
import type { Duplex } from "node:stream";
import { PyroError, toPyroError, type ErrorCode } from "../base/error.js";
import { checkSignal } from "../base/deadline.js";
import { settings } from "../base/settings.js";
import { cacheDirectory } from "../base/paths.js";
import { log } from "../base/log.js";
import { holdEnvironment, openEnvironment, pullEnvironment, scratchDisk, type ImageConfig, type OpenEnvironment, type OpenOptions, type PullProgress } from "../environments/index.js";
import { bootDeadline, bootLimits, chooseAccelerator, forking, hostUptimeMs, qemuVersion, startVm as boot, type AcceleratorChoice, type BootLimits, type RunningVm, type VmPlace, type VmSpec } from "../vmm/index.js";
import type { Channel } from "../channel/index.js";
import { checkHost } from "./host-room.js";
import { limits } from "./limits.js";
import { discardTemplate, findOrMakeTemplate } from "./template.js";

/** What happens between the call and the command, for whoever shows it. */
export type Phase =
  | { phase: "pull"; progress: PullProgress }
  | { phase: "probe" }
  /** Another process makes what is needed: a template, or the boot files. */
  | { phase: "waiting" }
  /** A VM is booted and frozen, for this and later ones to be forked from. */
  | { phase: "template" }
  /** `kvmReason`: why it is not KVM, a sentence. */
  | { phase: "start"; accelerator: "kvm" | "tcg"; kvmReason?: string }
  /** The caller allowed it, and no VM can be had. `warning` says what is not isolated, and why. */
  | { phase: "start"; executionMode: "host_compat"; warning: string }
  | { phase: "exec"; bootMs: number };

export interface StartRequest {
  environment: string;
  vcpuCount: number;
  memMib: number;
  /** Default 10,240. */
  diskMib?: number;
  ttlSeconds: number;
  /** Its end instead, on the clock since the host's boot, milliseconds: of a VM whose time began before it is started. */
  endsAtUptimeMs?: number;
  /** A new one when left out. */
  vmId?: string;
  /** For a VM that others use, and that can outlive this process. */
  place?: VmPlace;
  /** What the environment has to be: that which the disk in the place was written over. */
  environmentDigest?: string;
}

export interface StartOptions {
  signal?: AbortSignal;
  /** Boots, and neither uses nor makes a template. */
  cold?: boolean;
  /** Tries KVM again although there is a verdict. */
  probeAgain?: boolean;
  onPhase?: (phase: Phase) => void;
}

/** A guest that said hello and knows who it is. Whoever gets it ends it. */
export interface StartedVm {
  vmId: string;
  environmentDigest: string;
  /** What the image that it runs from says of its commands. */
  config?: ImageConfig;
  accelerator: "kvm" | "tcg";
  channel: Channel;
  vm: RunningVm;
  /** From the start of QEMU to the guest being ready for a command, milliseconds. */
  bootMs: number;
  end(): Promise<void>;
  /** Of a VM with a place: lets it go on without us. */
  release(): void;
}

/**
 * How long a fork may take to say hello. It needs a fifth of a second of processor time; one that uses seconds of it without an
 * answer goes on from a damaged template.
 */
const forkLimits: BootLimits = { ...bootLimits, cpuMs: 10_000, stallMs: 30_000, stallCpuMs: 50 };

/** Failures that a template may be the cause of; a full disk, say, is none. */
const templatesFault: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["BOOT_FAILED", "VMM_EXITED", "GUEST_LOST", "PROTOCOL", "TIMEOUT", "INTERNAL"]);

/** Failures that KVM may be the cause of. */
const kvmsFault: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["BOOT_FAILED", "VMM_EXITED", "GUEST_LOST"]);

export function startVm(request: StartRequest, options: StartOptions = {}): Promise<StartedVm> {
  return withPrepared(request, options, async (prepared) => {
    await checkHost(prepared.spec);
    const vm = await forkOrBoot(prepared, request, options);
    const { digest, config } = prepared.environment;
    return { ...vm, environmentDigest: digest, ...(config && { config }) };
  });
}

async function forkOrBoot({ environment, spec: machine, choice, hold }: Prepared, { vmId = newVmId(), endsAtUptimeMs }: StartRequest, options: StartOptions): Promise<Omit<StartedVm, "environmentDigest">> {
  const { signal, onPhase } = options;
  // A disk with a life behind it belongs to no template's memory.
  const template = options.cold || machine.place?.disk === "kept" ? undefined : await findOrMakeTemplate({ environment, spec: machine, accelerator: choice.accelerator, hold }, options);
  checkSignal(signal);
  const spec = await inTime(machine, endsAtUptimeMs);
  onPhase?.({ phase: "start", accelerator: choice.accelerator, ...(choice.kvm.reason === undefined ? {} : { kvmReason: choice.kvm.reason }) });
  const begin = performance.now();
  if (template !== undefined) {
    try {
      const forked = { ...spec, lockShared: [...(spec.lockShared ?? []), template.lockFile] };
      return await answering(() => forking!.fork(forked, choice.accelerator, template.directory, signal), forkLimits, vmId, begin, options);
    } catch (error) {
      checkSignal(signal);
      if (performance.now() - begin >= spec.ttlSeconds! * 1000) throw error; // it had its time
      const { code, message } = toPyroError(error);
      if (templatesFault.has(code)) await discardTemplate(template, message);
      else log("no fork", { environment: environment.name, why: message });
    }
  }
  await hold();
  return answering(() => boot(spec, { accelerator: choice.accelerator, ...(signal === undefined ? {} : { signal }) }), bootLimits, vmId, begin, options);
}

/** With what is left of its time now: what had to be made first may have taken minutes. */
async function inTime(spec: VmSpec, endsAtUptimeMs: number | undefined): Promise<VmSpec> {
  if (endsAtUptimeMs === undefined) return spec;
  const leftMs = endsAtUptimeMs - (await hostUptimeMs());
  if (leftMs <= 0) throw new PyroError("TIMEOUT", "The VM's time to live ended before it could be started.", { hint: "Give a larger --ttl-seconds (ttl_seconds)." });
  return { ...spec, ttlSeconds: Math.ceil(leftMs / 1000) };
}

/** All that a VM is started from, whether it is booted or forked. */
export interface Prepared {
  environment: OpenEnvironment;
  spec: VmSpec;
  choice: AcceleratorChoice;
  /**
   * From here on the environment is not pruned, until the work is done. For whoever boots from its files by their names. A fork does without, as that
   * is one more process: it opens its files, the keeper of its VM locks the environment, and one that was pruned in between fails it.
   */
  hold(): Promise<void>;
}

/** Has everything ready that a VM needs. A running VM's keeper keeps its environment from being pruned. */
export async function withPrepared<T>(request: StartRequest, options: StartOptions, work: (prepared: Prepared) => Promise<T>): Promise<T> {
  const waiting = {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onWait: () => options.onPhase?.({ phase: "waiting" }),
  };
  const environment = await openOrPull(request.environment, options, waiting);
  if (request.environmentDigest !== undefined && request.environmentDigest !== environment.digest) {
    throw new PyroError("INVALID_STATE", `The environment ${environment.name} is another one than when the VM was first started, and its disk does not fit the new one.`, { hint: "Create another VM." });
  }
  let held: ReturnType<typeof holdEnvironment> | undefined;
  const hold = async () => void (await (held ??= holdEnvironment(environment, waiting)));
  try {
    const [scratchBase, choice] = await Promise.all([scratchDisk(request.diskMib ?? limits.diskMib.default, waiting), accelerate(environment, options, hold)]);
    const spec: VmSpec = {
      vcpuCount: request.vcpuCount,
      memMib: request.memMib,
      kernel: environment.kernel,
      initramfs: environment.initramfs,
      rootDisk: environment.rootDisk,
      scratchBase,
      temporaryDirectory: cacheDirectory(),
      ttlSeconds: request.ttlSeconds,
      lockShared: [environment.lockFile],
      ...(request.place !== undefined && { place: request.place }),
    };
    const prepared: Prepared = { environment, spec, choice, hold };
    return await work(prepared).catch(async (error: unknown) => work({ ...prepared, choice: await withoutKvm(error, prepared, options) }));
  } finally {
    held?.then((lock) => lock.release()).catch(() => {}); // nobody has to wait for it
  }
}

/**
 * KVM can stop working after a guest ran under it, or not do for this machine what it did for that guest. Then it is tried once more, and what does not
 * come up under it runs without. Throws `error` where that is of no help or is not wanted.
 */
async function withoutKvm(error: unknown, { environment, choice, hold }: Prepared, options: StartOptions): Promise<AcceleratorChoice> {
  const { code, message } = toPyroError(error);
  if (choice.accelerator !== "kvm" || !kvmsFault.has(code)) throw error;
  const again = await accelerate(environment, { ...options, probeAgain: true }, hold);
  if (again.accelerator === "tcg") return again;
  if (settings.accelerator() === "kvm") throw error;
  return { accelerator: "tcg", kvm: { ...again.kvm, reason: `A small guest runs under KVM, and this VM did not: ${message.split("\n")[0]!.slice(0, 500)}` } };
}

/** Waits for the hello and makes the guest itself. */
async function answering(start: () => Promise<RunningVm>, limits: BootLimits, vmId: string, begin: number, { signal, onPhase }: StartOptions): Promise<Omit<StartedVm, "environmentDigest">> {
  const vm = await start();
  try {
    const { connectChannel } = await import("../channel/index.js"); // while QEMU starts: it has nothing to say before that
    const ready = async (abort: AbortSignal) => {
      const connected = await connectChannel(vm.ports[0]!, { fresh: true, signal: abort });
      await connected.identify({ vmId, hostname: vmId, machineId: randomBytes(16).toString("hex") });
      return connected;
    };
    const channel = await bootDeadline(vm, ready, signal, limits);
    const bootMs = performance.now() - begin;
    log("guest is ready", { vmId, bootMs: Math.round(bootMs), kernel: channel.hello.kernel, accelerator: vm.accelerator });
    onPhase?.({ phase: "exec", bootMs });
    return { vmId, accelerator: vm.accelerator, channel, vm, bootMs, end: () => endVm(vm, channel), release: () => releaseVm(vm, channel) };
  } catch (error) {
    await vm.end();
    checkSignal(signal); // what broke because it was to end is no failure of its own
    throw error;
  }
}

/** Which accelerator guests of this host get, and what was found out about KVM. Boots a probe once per host boot. */
export function accelerate(environment: OpenEnvironment, options: StartOptions = {}, hold?: () => Promise<void>): Promise<AcceleratorChoice> {
  return chooseAccelerator({
    kernel: environment.kernel,
    initramfs: environment.initramfs,
    guestKey: `${environment.kernelDigest} ${environment.initramfsDigest}`,
    ...(options.probeAgain && { again: true }),
    saysHello,
    setting: settings.accelerator(),
    onProbe: async () => {
      await hold?.();
      options.onPhase?.({ phase: "probe" });
    },
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
}

/** The proof that a guest runs: it answers on the channel. */
export async function saysHello(port: Duplex, signal: AbortSignal): Promise<void> {
  const { connectChannel } = await import("../channel/index.js");
  const channel = await connectChannel(port, { fresh: true, signal });
  channel.close();
}

async function openOrPull(name: string, options: StartOptions, looking: OpenOptions): Promise<OpenEnvironment> {
  const installed = await openEnvironment(name, looking).catch((error: unknown) => {
    // A damaged environment is mended by pulling it; anything else is the caller's.
    if (error instanceof PyroError && error.code === "ENVIRONMENT_INVALID") return undefined;
    throw error;
  });
  if (installed !== undefined) return installed;
  await qemuVersion(options.signal); // what is there to be known before a minute of work
  await pullEnvironment(name, {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onProgress: (progress) => options.onPhase?.({ phase: "pull", progress }),
  });
  const pulled = await openEnvironment(name, looking);
  if (pulled === undefined) throw new PyroError("ENVIRONMENT_INVALID", `The environment ${name} was pulled and is not there.`, { hint: `pyro env pull ${name} --force` });
  return pulled;
}

async function endVm(vm: RunningVm, channel: Channel): Promise<void> {
  channel.close();
  await vm.end();
}

function releaseVm(vm: RunningVm, channel: Channel): void {
  channel.close();
  vm.release?.();
}

/** Eight letters and digits without look-alikes, 40 random bits: `vm-k3v9x2mq`. */
export function newVmId(): string {
  const letters = "23456789abcdefghjkmnpqrstuvwxyz0";
  return `vm-${Array.from(randomBytes(8), (byte) => letters[byte & 31]).join("")}`;
}
