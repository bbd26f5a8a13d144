import type { Readable, Writable } from "node:stream";
import { copyIn, copyOut, execInVm, limits, networkInfoOf, setNetworkOf, spawnInVm, type Command, type CopyOptions, type CopyResult, type ExecResult, type NetworkInfo, type OpenedVm, type PolicyRequest, type Refusal, type SpawnedProcess, type SpawnRequest } from "../core/index.js";

import { GuestFiles, type Abortable } from "./files.js";
import { GuestJobs } from "./jobs.js";

export interface VmExecOptions {
  /** 1 to 86,400; default 30. Then the command is killed with all it started. */
  timeoutSeconds?: number;
  /** Bytes kept of each output stream, 1 KiB to 64 MiB; default 1 MiB, head and tail. */
  captureBytes?: number;
  /** Added to what the guest sets by itself. */
  env?: Readonly<Record<string, string>>;
  /** A path in the guest; the user's home when left out. */
  cwd?: string;
  /** `name`, `uid`, `name:group` or `uid:gid`; root when left out. */
  user?: string;
  /** Standard input; none when left out. */
  stdin?: Readable;
  /** Where output goes as it comes, besides being captured. */
  stdout?: Writable;
  stderr?: Writable;
  /** Called when the guest's network refuses something while the command runs; for the same thing once. */
  onRefused?: (refusal: Refusal) => void;
  /** Kills the command. */
  signal?: AbortSignal;
}

/**
 * A running VM to use many times: of this process alone (`Pyro.openVm`) or shared (`Pyro.connectVm`). Close it, or declare it with `await using`.
 */
export class Vm implements AsyncDisposable {
  readonly #vm: OpenedVm;
  /** The guest's files, one by one. */
  readonly files: GuestFiles;
  /** Commands in the background. */
  readonly jobs: GuestJobs;

  private constructor(vm: OpenedVm) {
    this.#vm = vm;
    this.files = GuestFiles.of(vm);
    this.jobs = GuestJobs.of(vm);
  }

  /** @internal What `Pyro.openVm` and `Pyro.connectVm` give. */
  static of(vm: OpenedVm): Vm {
    return new Vm(vm);
  }

  get vmId(): string {
    return this.#vm.vmId;
  }

  get environment(): string {
    return this.#vm.environment;
  }

  /** What the guest runs under. */
  get accelerator(): "kvm" | "tcg" {
    return this.#vm.accelerator;
  }

  /** Runs a command to its end. Throws INVALID_ARGUMENT, GUEST_LOST, VMM_EXITED, TIMEOUT (the VM's time to live), CANCELLED; a time-out of the command is a result. */
  async exec(command: Command, options: VmExecOptions = {}): Promise<ExecResult> {
    const { signal, onRefused, timeoutSeconds = limits.timeoutSeconds.default, captureBytes = limits.captureBytes.default, ...rest } = options;
    return execInVm(this.#vm, this.#vm.environment, { command, timeoutSeconds, captureBytes, ...rest }, { ...(signal && { signal }), ...(onRefused && { onRefused }) });
  }

  /** Starts a command and gives its streams. Throws INVALID_ARGUMENT, INVALID_STATE, CANCELLED. */
  spawn(command: Command, options: Omit<SpawnRequest, "command"> & { signal?: AbortSignal } = {}): SpawnedProcess {
    const { signal, ...rest } = options;
    return spawnInVm(this.#vm, { command, ...rest }, signal);
  }

  /**
   * Copies a file or a directory with all in it from the host into the guest, modes, times, links and hard links kept. Whole or not there, unless `replace`.
   * A `destination` that is a directory gets it inside. Throws NOT_FOUND, EXISTS, DENIED, INVALID_STATE, GUEST_LOST, CANCELLED.
   */
  async copyIn(source: string, destination: string, options: CopyOptions = {}): Promise<CopyResult> {
    return copyIn(this.#vm, source, destination, options);
  }

  /**
   * Copies a file or a directory with all in it out of the guest. Nothing of the guest's is followed on the host; all belongs to the caller, unless `archive`. Whole or not there.
   * Throws NOT_FOUND, EXISTS, DENIED, DISK_FULL, PROTOCOL, GUEST_LOST, CANCELLED.
   */
  async copyOut(source: string, destination: string, options: CopyOptions = {}): Promise<CopyResult> {
    return copyOut(this.#vm, source, destination, options);
  }

  /** What the guest may reach, its ports on this host, and what it did with its network until now. Throws CANCELLED. */
  async networkInfo(options: Abortable = {}): Promise<NetworkInfo> {
    return networkInfoOf(this.#vm, options);
  }

  /**
   * Another policy for a VM with a network, in place of the one that it has; connections that are not allowed any more are reset. With `network` false nothing is allowed.
   * Throws INVALID_ARGUMENT, INVALID_STATE for a VM without a network, VMM_EXITED where its gateway is gone, CANCELLED.
   */
  async setNetwork(policy: PolicyRequest, options: Abortable = {}): Promise<NetworkInfo> {
    return setNetworkOf(this.#vm, policy, options);
  }

  /** Ends a VM of this process; lets go of a shared one, and ends what was begun here. Safe to call again. */
  async close(): Promise<void> {
    await this.#vm.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
