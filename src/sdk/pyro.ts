import {
  inspectEnvironment,
  listEnvironments,
  pruneEnvironments,
  pullEnvironment,
  runInVm,
  warmEnvironment,
  type Environment,
  type EnvironmentDetails,
  type ExecResult,
  type Phase,
  type PullProgress,
  type RunRequest,
  type WarmRequest,
  type WarmResult,
} from "../core/index.js";

export interface PullOptions {
  signal?: AbortSignal;
  /** Called at least every two seconds while something takes long. */
  onProgress?: (progress: PullProgress) => void;
  /** Makes the environment again although it is installed and whole. */
  force?: boolean;
}

export interface RunInVmOptions extends RunRequest {
  signal?: AbortSignal;
  /** What happens before the command runs. */
  onPhase?: (phase: Phase) => void;
  /** Bytes kept of each output stream, 1 KiB to 64 MiB; default 1 MiB, head and tail. */
  captureBytes?: number;
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

  /** Makes an environment ready for use; does nothing but verify it when it is there. Throws NOT_FOUND, REGISTRY, DISK_FULL, HOST_MISSING. */
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

  /** Removes what no name refers to any more, templates that nothing can be forked from any more, and what broke off; never what a VM uses. */
  async pruneEnvironments(options: { signal?: AbortSignal } = {}): Promise<{ removed: string[]; reclaimedBytes: number }> {
    return pruneEnvironments(options);
  }

  /**
   * Starts a VM (a fork of a frozen one where it can be), runs one command in it and ends it, whatever happens. Pulls the environment if it is not installed.
   * Throws BOOT_FAILED, HOST_MISSING, INVALID_ARGUMENT, NOT_FOUND, CANCELLED (by `signal`).
   */
  async runInVm(options: RunInVmOptions): Promise<ExecResult> {
    const { signal, onPhase, captureBytes, ...request } = options;
    return runInVm(request, { ...(signal && { signal }), ...(onPhase && { onPhase }), ...(captureBytes !== undefined && { captureBytes }) });
  }
}
