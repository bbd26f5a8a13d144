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
import type { OpenGateway } from "./exec.js";
import type { NetworkStart, VmGateway } from "./gateway.js";
import { checkHost } from "./host-room.js";
import { introduce } from "./introduce.js";
import { limits } from "./limits.js";
import type { Network, PublishedPort } from "./network.js";
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
  /** The VM is ready. `publishedPorts`: the guest's ports on this host, if there are any. */
  | { phase: "exec"; bootMs: number; publishedPorts?: readonly PublishedPort[] };

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
  network?: Network;
  /** Where the gateway keeps its audit; absolute. */
  auditFile?: string;
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
  /** What every command is told of the network, as variables. */
  variables?: Readonly<Record<string, string>>;
  /** Of a VM with a network. */
  gateway?: VmGateway;
  openGateway?: OpenGateway;
  /** The guest's ports on this host, those that were chosen here included; absent where there are none. */
  publishedPorts?: readonly PublishedPort[];
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
    const [network] = await Promise.all([request.network && startingNetwork(request.network, request.auditFile), checkHost(prepared.spec)]);
    const vm = await forkOrBoot(prepared, request, options, network);
    const { digest, config } = prepared.environment;
    return { ...vm, environmentDigest: digest, ...(config && { config }) };
  }).catch((error: unknown) => {
    throw toPyroError(error); // the system's own, where descriptors run out, say
  });
}

/** Few VMs have a network, and none of the others loads what it takes. */
async function startingNetwork(network: Network, auditFile: string | undefined): Promise<NetworkStart> {
  return (await import("./gateway.js")).prepareNetwork(network, auditFile);
}

/** A failure that no template is to blame for. */
class Blameless {
  constructor(
    readonly error: unknown,
    /** Another VM would fare no better. */
    readonly isFinal: boolean,
  ) {}
}

/** Of a monitor that was killed: where memory runs out the kernel does it, and forks at a time would otherwise each take the template from the others. */
const killedStatus = 137;

async function forkOrBoot({ environment, spec: machine, choice, hold }: Prepared, { vmId = newVmId(), endsAtUptimeMs }: StartRequest, options: StartOptions, network: NetworkStart | undefined): Promise<Omit<StartedVm, "environmentDigest">> {
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
      return await answering(() => forking!.fork(forked, choice.accelerator, template.directory, signal), forkLimits, vmId, begin, options, network);
    } catch (error) {
      checkSignal(signal);
      const [cause, isBlameless] = error instanceof Blameless ? [error.error, true] : [error, false];
      if (error instanceof Blameless && error.isFinal) throw cause;
      if (performance.now() - begin >= spec.ttlSeconds! * 1000) throw cause; // it had its time
      const { code, message } = toPyroError(cause);
      if (templatesFault.has(code) && !isBlameless) await discardTemplate(template, message);
      else log("no fork", { environment: environment.name, why: message });
    }
  }
  await hold();
  return answering(() => boot(spec, { accelerator: choice.accelerator, ...(signal === undefined ? {} : { signal }) }), bootLimits, vmId, begin, options, network).catch((error: unknown) => {
    throw error instanceof Blameless ? error.error : error;
  });
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
  const environment = await openOrPull(request.environment, options, { ...waiting, digest: request.environmentDigest });
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
      ...(request.network !== undefined && { gateway: (await import("../net/index.js")).gatewayProgram() }),
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
async function answering(start: () => Promise<RunningVm>, limits: BootLimits, vmId: string, begin: number, { signal, onPhase }: StartOptions, network: NetworkStart | undefined): Promise<Omit<StartedVm, "environmentDigest">> {
  const vm = await start();
  try {
    const { connectChannel } = await import("../channel/index.js"); // while QEMU starts: it has nothing to say before that
    const gateway = network && (await import("./gateway.js")).configureGateway(vm, vmId, network);
    const card = network && { network: (await import("./guest-network.js")).guestNetwork };
    const ready = async (abort: AbortSignal) => {
      const connected = await connectChannel(vm.ports[0]!, { fresh: true, signal: abort });
      await introduce(connected, { vmId, hostname: vmId, machineId: randomBytes(16).toString("hex"), ...card }, abort);
      return connected;
    };
    const channel = await bootDeadline(vm, ready, signal, limits);
    const networked = network && (await networkReady(network, gateway!, channel, vm.release !== undefined));
    const bootMs = performance.now() - begin;
    log("guest is ready", { vmId, bootMs: Math.round(bootMs), kernel: channel.hello.kernel, accelerator: vm.accelerator });
    const { published = [], ...using } = networked ?? {};
    const ports = published.length > 0 && { publishedPorts: published };
    onPhase?.({ phase: "exec", bootMs, ...ports });
    return { vmId, accelerator: vm.accelerator, channel, vm, bootMs, ...using, ...ports, end: () => endVm(vm, channel), release: () => releaseVm(vm, channel) };
  } catch (error) {
    await vm.end();
    checkSignal(signal); // what broke because it was to end is no failure of its own
    const { reason, code } = await vm.exited;
    throw reason === "failed" && code === killedStatus ? new Blameless(error, false) : error;
  }
}

/**
 * The guest's own program is told of the network by now; the gateway is a process that starts beside QEMU, and mostly later. It is waited for where there is something
 * to hear from it, and where it has to be ready before we let go of the VM. Else the first packet waits for it, and a command that needs none waits for nothing.
 */
async function networkReady(network: NetworkStart, gateway: VmGateway, channel: Channel, outlivesUs: boolean): Promise<Pick<StartedVm, "gateway" | "variables" | "openGateway"> & { published?: readonly PublishedPort[] }> {
  const { isAwaited, placeholderVariables } = await import("./gateway.js");
  let isReady = false;
  gateway.ready.then(() => (isReady = true)).catch(() => {});
  const openGateway = Object.assign(async () => {
    await gateway.ready;
    return { control: gateway.control, release: () => {} };
  }, { isReady: () => isReady });
  if (!isAwaited(network) && !outlivesUs) return { gateway, openGateway };
  try {
    const { published, caCertificate } = await gateway.ready;
    const trust = caCertificate === undefined ? {} : await (await import("./guest-trust.js")).trustInGuest(channel, caCertificate);
    return { gateway, openGateway, published, variables: { ...trust, ...placeholderVariables(network) } };
  } catch (error) {
    throw new Blameless(error, true);
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
  const pulled = await openEnvironment(name, looking); // of that digest, if it has been mended
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
