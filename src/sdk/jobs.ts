import { attachJob, forgetJob, killJob, listJobs, startJob, type AttachedJob, type Command, type Job, type JobRequest, type OpenedVm, type SignalScope } from "../core/index.js";
import type { Abortable } from "./files.js";

/** Background jobs of a running VM: commands that go on when whoever started them is gone, and can be found again by name. All reject with GUEST_LOST where the VM is gone. */
export class GuestJobs {
  readonly #vm: OpenedVm;

  private constructor(vm: OpenedVm) {
    this.#vm = vm;
  }

  /** @internal What `Vm.jobs` is. */
  static of(vm: OpenedVm): GuestJobs {
    return new GuestJobs(vm);
  }

  /** Resolves when the command runs. Rejects with EXISTS (the name), NOT_FOUND or DENIED (the command), INVALID_ARGUMENT, INVALID_STATE (64 run), CANCELLED. */
  async start(command: Command, options: Omit<JobRequest, "command"> & Abortable = {}): Promise<{ name: string; pid: number }> {
    const { signal, ...rest } = options;
    return startJob(this.#vm, { command, ...rest }, signal === undefined ? {} : { signal });
  }

  /** Those that run and those that ended, the oldest first; the guest keeps 64. */
  async list(options: Abortable = {}): Promise<Job[]> {
    return listJobs(this.#vm, options);
  }

  /** Its output, as far as the guest still has it, and its end. `signal` detaches. Rejects with NOT_FOUND. */
  async attach(name: string, options: Abortable = {}): Promise<AttachedJob> {
    return attachJob(this.#vm, name, options.signal);
  }

  /** `signal` by name (default `SIGTERM`) or Linux number, to the job's process group unless another scope is given. Rejects with NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE. */
  async kill(name: string, signal?: string | number, scope?: SignalScope, options: Abortable = {}): Promise<void> {
    await killJob(this.#vm, name, signal, scope, options);
  }

  /** Of a job that has ended. Rejects with NOT_FOUND, INVALID_STATE. */
  async forget(name: string, options: Abortable = {}): Promise<void> {
    await forgetJob(this.#vm, name, options);
  }
}
