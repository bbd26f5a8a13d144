/**
 * Which accelerator guests get. That /dev/kvm is there, opens and answers proves nothing: there are hosts on which a guest
 * under it never runs a line. So one guest is booted under KVM and has to say hello; the answer holds until the host is booted
 * again, or QEMU or the kernel is another.
 */
import { access, constants } from "node:fs/promises";
import { tmpdir } from "node:os";
import type { Duplex } from "node:stream";
import { checkSignal } from "../base/deadline.js";
import { PyroError, toPyroError } from "../base/error.js";
import { log } from "../base/log.js";
import type { AcceleratorSetting } from "../base/settings.js";
import { bootDeadline, bootLimits, type BootLimits } from "./boot-deadline.js";
import { hostBootId, readFact, writeFact } from "./host-facts.js";
import type { Accelerator, Backend, RunningVm } from "./vmm.js";

export interface KvmAccess {
  exists: boolean;
  readable: boolean;
  writable: boolean;
}

export interface KvmVerdict extends KvmAccess {
  /** Whether a guest really ran under KVM here; undefined if none was tried. */
  guestRan: boolean | undefined;
  /** Why KVM is not used, a sentence. */
  reason?: string;
  /** The step that would mend it. */
  hint?: string;
}

export interface AcceleratorChoice {
  accelerator: Accelerator;
  kvm: KvmVerdict;
}

export interface AcceleratorOptions {
  kernel: string;
  initramfs: string;
  /** Differs whenever kernel or initramfs do, and only then: the same guest in two environments is tried once. */
  guestKey: string;
  /** Tries again although there is a verdict. */
  again?: boolean;
  /** Resolves when the guest behind the port has proved that it runs. */
  saysHello: (port: Duplex, signal: AbortSignal) => Promise<void>;
  setting: AcceleratorSetting;
  /** Called, and waited for, before a guest is booted for a test. */
  onProbe?: () => void | Promise<void>;
  signal?: AbortSignal;
}

/**
 * A guest under a KVM that works says hello in well under a second, on a loaded host or nested in an emulated one after some
 * seconds of processor time. One that waits for what never comes uses none, and one that spins uses all it gets.
 */
const probeLimits: BootLimits = { ...bootLimits, cpuMs: 20_000, stallMs: 8000, totalMs: 60_000 };
/** For whoever wants KVM or nothing: a host may be slow without end, and there is nothing else to hurry to. */
const patientLimits: BootLimits = { ...probeLimits, cpuMs: 120_000, totalMs: 300_000 };
const probeMemMib = 128;
const device = "/dev/kvm";

/** Chooses for `backend`. With the setting `kvm` and no KVM that works: HOST_MISSING or BOOT_FAILED, with the reason. */
export async function choose(backend: Backend, options: AcceleratorOptions): Promise<AcceleratorChoice> {
  const found = await inspectKvm();
  if (options.setting === "tcg") return { accelerator: "tcg", kvm: { ...found, guestRan: undefined, reason: "PYRO_ACCELERATOR is tcg, so KVM was not tried." } };
  const kvm: KvmVerdict = { ...found, ...(accessProblem(found) ?? (await verdict(backend, options))) };
  if (kvm.guestRan) return { accelerator: "kvm", kvm };
  if (options.setting === "auto") return { accelerator: "tcg", kvm };
  throw new PyroError(found.exists && found.readable && found.writable ? "BOOT_FAILED" : "HOST_MISSING", `PYRO_ACCELERATOR is kvm, and KVM does not work here: ${kvm.reason}`, {
    hint: `${kvm.hint === undefined ? "" : `${kvm.hint}. Or: `}Unset PYRO_ACCELERATOR: without KVM, guests run emulated and slower.`,
  });
}

/** What the file system says about /dev/kvm. No promise that a guest runs. */
export async function inspectKvm(path = device): Promise<KvmAccess> {
  const can = async (mode: number) => access(path, mode).then(() => true, () => false);
  const [exists, readable, writable] = await Promise.all([can(constants.F_OK), can(constants.R_OK), can(constants.W_OK)]);
  return { exists, readable, writable };
}

/** Why a guest need not even be tried; undefined if it is worth it. */
export function accessProblem(found: KvmAccess): { guestRan: undefined; reason: string; hint: string } | undefined {
  if (!found.exists) return { guestRan: undefined, reason: `There is no ${device}.`, hint: "Switch virtualisation on in the firmware (or nested virtualisation in the outer hypervisor), then: sudo modprobe kvm_intel || sudo modprobe kvm_amd" };
  if (!found.readable || !found.writable) return { guestRan: undefined, reason: `${device} is there and may not be opened by this user.`, hint: "sudo usermod -aG kvm $USER, then log in again" };
  return undefined;
}

async function verdict(backend: Backend, options: AcceleratorOptions): Promise<{ guestRan: boolean; reason?: string }> {
  const [boot, { build }] = await Promise.all([hostBootId(), backend.version(options.signal)]);
  const key = [boot, build, options.guestKey].join("|");
  const kept = options.again ? undefined : await readFact("kvm", key);
  if (isVerdict(kept)) return kept;
  await options.onProbe?.();
  const fresh = await probe(backend, options);
  checkSignal(options.signal); // a probe that was broken off says nothing
  await writeFact("kvm", key, fresh);
  log("KVM was tried", fresh);
  return fresh;
}

async function probe(backend: Backend, options: AcceleratorOptions): Promise<{ guestRan: boolean; reason?: string }> {
  let vm: RunningVm | undefined;
  try {
    vm = await backend.start(
      { vcpuCount: 1, memMib: probeMemMib, kernel: options.kernel, initramfs: options.initramfs, temporaryDirectory: tmpdir(), ttlSeconds: 300, kernelArguments: ["pyro.probe"] },
      "kvm",
      options.signal,
    );
    const port = vm.ports[0]!;
    await bootDeadline(vm, (abort) => options.saysHello(port, abort), options.signal, options.setting === "kvm" ? patientLimits : probeLimits);
    return { guestRan: true };
  } catch (error) {
    return { guestRan: false, reason: toPyroError(error).message.split("\n")[0]!.slice(0, 500) };
  } finally {
    await vm?.end();
  }
}

function isVerdict(value: unknown): value is { guestRan: boolean; reason?: string } {
  return typeof value === "object" && value !== null && "guestRan" in value && typeof value.guestRan === "boolean" && (!("reason" in value) || typeof value.reason === "string");
}
