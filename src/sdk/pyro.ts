import {
  attachVm,
  auditVm,
  createVm,
  deleteVm,
  execVm,
  exportEnvironment,
  inspectEnvironment,
  listEnvironments,
  listVms,
  networkInfoVm,
  openVm,
  pruneEnvironments,
  pullEnvironment,
  reapExpired,
  removeEnvironment,
  runInVm,
  setNetworkVm,
  startVm,
  statsVm,
  statusVm,
  stopVm,
  vmLogs,
  warmEnvironment,
  type AuditRecord,
  type CreateRequest,
  type Command,
  type Environment,
  type EnvironmentDetails,
  type ExecResult,
  type ExportResult,
  type NetworkInfo,
  type OpenRequest,
  type Phase,
  type PolicyRequest,
  type PullProgress,
  type Refusal,
  type RunRequest,
  type Vm as VmRecord,
  type VmStats,
  type WarmRequest,
  type WarmResult,
} from "../core/index.js";
import type { McpServer } from "@modelcontextprotocol/server";
import { createServer, type CreateServerOptions } from "./create-server.js";
import { Vm, type VmExecOptions } from "./vm.js";

export interface PullOptions {
  signal?: AbortSignal;
  /** Called at least every two seconds while something takes long. */
  onProgress?: (progress: PullProgress) => void;
  /** Makes the environment again although it is installed and whole. */
  force?: boolean;
  /** The image that the name is to stand for: a reference, a layout directory, an archive, or `-` for the archive in `input`. */
  source?: string;
  /** An archive as `docker save` or a tar of a layout directory is one. */
  input?: AsyncIterable<Uint8Array>;
  /** `linux/amd64`, also with a variant (`linux/amd64/v3`): which image of several. */
  platform?: string;
}

export interface RunInVmOptions extends RunRequest {
  signal?: AbortSignal;
  /** What happens before the command runs. */
  onPhase?: (phase: Phase) => void;
  /** Called when the guest's network refuses something; for the same thing once. The result has them, too. */
  onRefused?: (refusal: Refusal) => void;
  /** Bytes kept of each output stream, 1 KiB to 64 MiB; default 1 MiB, head and tail. */
  captureBytes?: number;
}

export interface ExecVmOptions extends VmExecOptions {
  command: Command;
}

/**
 * Commands in virtual machines of their own. Errors are `PyroError`; a command that exits with another status than 0 is a
 * result and no error.
 */
export class Pyro {
  /** The catalog's environments and whatever else is installed. */
  async listEnvironments(options: { signal?: AbortSignal } = {}): Promise<Environment[]> {
    return listEnvironments(options);
  }

  /**
   * Makes an environment of the catalog, or an image, ready for use; does nothing but verify it when it is there, and follow an image's tag. Throws NOT_FOUND,
   * REGISTRY, ENVIRONMENT_INVALID, UNSUPPORTED, DENIED, DISK_FULL, HOST_MISSING.
   */
  async pullEnvironment(environment: string, options: PullOptions = {}): Promise<Environment> {
    return pullEnvironment(environment, options);
  }

  /**
   * Boots and freezes a VM of this environment and size, so that the first one starts as fast as all others; does nothing where that was done.
   * Throws NOT_FOUND, INVALID_ARGUMENT, BOOT_FAILED, DISK_FULL, UNSUPPORTED.
   */
  async warmEnvironment(request: WarmRequest, options: { signal?: AbortSignal; onPhase?: (phase: Phase) => void } = {}): Promise<WarmResult> {
    return warmEnvironment(request, options);
  }

  /** What an environment is made of: kernel, files, digests, packages. Throws NOT_FOUND. */
  async inspectEnvironment(environment: string, options: { signal?: AbortSignal } = {}): Promise<EnvironmentDetails> {
    return inspectEnvironment(environment, options);
  }

  /** Removes what no name refers to any more (and environments that were pulled longer ago than `olderThanSeconds`, or more than `maxMib` of them), templates that nothing can be forked from any more, and what broke off; never what a VM uses. */
  async pruneEnvironments(options: { signal?: AbortSignal; olderThanSeconds?: number; maxMib?: number } = {}): Promise<{ removed: string[]; reclaimedBytes: number }> {
    return pruneEnvironments(options);
  }

  /**
   * Writes an installed image as an OCI layout directory, with the digests that it came with. Throws NOT_FOUND, EXISTS, UNSUPPORTED for what was no image,
   * ENVIRONMENT_INVALID when what it was made of is not kept any more, DISK_FULL, DENIED.
   */
  async exportEnvironment(environment: string, directory: string, options: { signal?: AbortSignal } = {}): Promise<ExportResult> {
    return exportEnvironment(environment, directory, options);
  }

  /** Removes an installed environment, with what nothing else needs. Throws NOT_FOUND, INVALID_STATE while a VM runs from it. */
  async removeEnvironment(environment: string, options: { signal?: AbortSignal } = {}): Promise<{ removed: string[]; reclaimedBytes: number }> {
    return removeEnvironment(environment, options);
  }

  /**
   * Starts a VM (a fork of a frozen one where it can be), runs one command in it and ends it, whatever happens. Pulls the environment if it is not installed.
   * With `allowHostCompat`, and only then, the command runs on the host if no VM can be had; the result's `warning` says what that means.
   * Throws BOOT_FAILED, HOST_MISSING, INVALID_ARGUMENT, NOT_FOUND, CANCELLED (by `signal`).
   */
  async runInVm(options: RunInVmOptions): Promise<ExecResult> {
    const { signal, onPhase, onRefused, captureBytes, ...request } = options;
    return runInVm(request, { ...(signal && { signal }), ...(onPhase && { onPhase }), ...(onRefused && { onRefused }), ...(captureBytes !== undefined && { captureBytes }) });
  }

  /**
   * A VM of this process to use many times; it ends with `close`, or with the process, however that ends. Pulls the environment if it is not installed.
   * Throws BOOT_FAILED, HOST_MISSING, DISK_FULL, INVALID_ARGUMENT, NOT_FOUND, CANCELLED.
   */
  async openVm(options: OpenRequest & { signal?: AbortSignal; onPhase?: (phase: Phase) => void }): Promise<Vm> {
    const { signal, onPhase, ...request } = options;
    return Vm.of(await openVm(request, { ...(signal && { signal }), ...(onPhase && { onPhase }) }));
  }

  /** A VM that was created and started, by whichever process, to use many times. Throws NOT_FOUND, INVALID_STATE, GUEST_LOST, CANCELLED. */
  async connectVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<Vm> {
    return Vm.of(await attachVm(vmId, options));
  }

  /** The record of a VM that outlives this process; nothing runs yet. Throws INVALID_ARGUMENT, NOT_FOUND, CANCELLED. */
  async createVm(options: CreateRequest & { signal?: AbortSignal }): Promise<VmRecord> {
    const { signal, ...request } = options;
    return createVm(request, signal === undefined ? {} : { signal });
  }

  /** Starts a created VM; boots a stopped one, with the disk it had. Throws NOT_FOUND, INVALID_STATE, BOOT_FAILED, HOST_MISSING, DISK_FULL, CANCELLED. */
  async startVm(vmId: string, options: { signal?: AbortSignal; onPhase?: (phase: Phase) => void } = {}): Promise<VmRecord> {
    return startVm(vmId, options);
  }

  /**
   * Runs ONE command in a started VM, and the VM is gone: also when the command timed out, was cancelled, or this process died. `connectVm` is for many.
   * Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE, GUEST_LOST, VMM_EXITED, TIMEOUT, CANCELLED.
   */
  async execVm(vmId: string, options: ExecVmOptions): Promise<ExecResult> {
    const { signal, onRefused, ...request } = options;
    return execVm(vmId, request, { ...(signal && { signal }), ...(onRefused && { onRefused }) });
  }

  /** Ends a VM and keeps its record, disk and log. Throws NOT_FOUND, INVALID_STATE, CANCELLED. */
  async stopVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<VmRecord> {
    return stopVm(vmId, options);
  }

  /** Ends a VM and removes all that is left of it. Throws NOT_FOUND, CANCELLED. */
  async deleteVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<{ vmId: string; deleted: true }> {
    return deleteVm(vmId, options);
  }

  /** What is true of a VM now. Throws NOT_FOUND, CANCELLED. */
  async statusVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<VmRecord> {
    return statusVm(vmId, options);
  }

  /** What a VM uses, as the host sees it. Throws NOT_FOUND, CANCELLED. */
  async statsVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<VmStats> {
    return statsVm(vmId, options);
  }

  /** All VMs with a record, oldest first. Those of `runInVm` and `openVm` have none. Throws CANCELLED. */
  async listVms(options: { signal?: AbortSignal } = {}): Promise<VmRecord[]> {
    return listVms(options);
  }

  /** The end of a VM's console, at most 64 KiB, harmless for a terminal. Throws NOT_FOUND, CANCELLED. */
  async logsVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<string> {
    return vmLogs(vmId, undefined, options);
  }

  /** What a VM may reach, its ports on this host, and what it did with its network until now. Throws NOT_FOUND, CANCELLED. */
  async networkInfoVm(vmId: string, options: { signal?: AbortSignal } = {}): Promise<NetworkInfo> {
    return networkInfoVm(vmId, options);
  }

  /**
   * Another policy for a VM with a network, in place of the one that it has, also while it runs: connections that are not allowed any more are reset. With `network`
   * false nothing is allowed. Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE for a VM without a network, VMM_EXITED where its gateway is gone, CANCELLED.
   */
  async setNetworkVm(vmId: string, policy: PolicyRequest, options: { signal?: AbortSignal } = {}): Promise<NetworkInfo> {
    return setNetworkVm(vmId, policy, options);
  }

  /** What a VM asked of its network and what became of it, oldest first; kept within 8 MiB. Throws NOT_FOUND, INVALID_STATE for a VM without a network, CANCELLED. */
  async auditVm(vmId: string, options: { signal?: AbortSignal; last?: number } = {}): Promise<AuditRecord[]> {
    return auditVm(vmId, options);
  }

  /** Ends what expired or lost its owner, and clears away what a crash left; done at the start of every command line, too. */
  async reapExpired(options: { signal?: AbortSignal } = {}): Promise<{ reaped: string[] }> {
    return reapExpired(options);
  }

  /** An MCP server over all this, ready to be connected to a transport: `await pyro.createServer().connect(transport)`. Throws INVALID_ARGUMENT. */
  createServer(options: CreateServerOptions = {}): McpServer {
    return createServer(options);
  }
}
