/** How many VMs that calls started may go on running: those outlive their calls, and a client can forget them. */
import { PyroError, toPyroError } from "../base/error.js";
import { statusVm, type Vm } from "../core/index.js";

type StatusVm = (vmId: string) => Promise<Pick<Vm, "state">>;

export class RunningVms {
  readonly #most: number;
  readonly #status: StatusVm;
  /** Started here; some may have ended since. */
  readonly #started = new Set<string>();
  #starting = 0;

  constructor(most: number, status: StatusVm = statusVm) {
    this.#most = most;
    this.#status = status;
  }

  /** Starts one by `start`. Throws DENIED where as many run as may. */
  async start<T>(vmId: string, start: () => Promise<T>): Promise<T> {
    if (this.#count() >= this.#most) await this.#forgetEnded();
    if (this.#count() >= this.#most) {
      throw new PyroError("DENIED", `${this.#count()} of the VMs that were started here run, or begin to; that is as many as this server has at a time.`, {
        hint: this.#started.size === 0 ? "Try again when one of them is done." : `End one that is no longer needed with vm_delete: ${[...this.#started].slice(0, 16).join(", ")}.`,
      });
    }
    this.#starting++;
    try {
      const result = await start();
      this.#started.add(vmId);
      return result;
    } finally {
      this.#starting--;
    }
  }

  #count(): number {
    return this.#started.size + this.#starting;
  }

  async #forgetEnded(): Promise<void> {
    for (const each of this.#started) if (await this.#hasEnded(each)) this.#started.delete(each);
  }

  /** One that can't be looked at may run. */
  async #hasEnded(vmId: string): Promise<boolean> {
    return this.#status(vmId).then(({ state }) => state !== "started", (error: unknown) => toPyroError(error).code === "NOT_FOUND");
  }
}
