/** How many calls are at work at the same time; the others wait, in the order they came. */
import { cancelled } from "../base/deadline.js";
import { PyroError } from "../base/error.js";

/** More than any client waits for, and few enough to be remembered. */
const defaultMaxWaiting = 256;

export class Slots {
  readonly #most: number;
  readonly #maxWaiting: number;
  #taken = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(most: number, maxWaiting = defaultMaxWaiting) {
    this.#most = most;
    this.#maxWaiting = maxWaiting;
  }

  /** Runs `work` in a slot. Throws DENIED where too many wait already, CANCELLED. */
  async use<T>(signal: AbortSignal, onWait: () => void, work: () => Promise<T>): Promise<T> {
    if (this.#taken < this.#most) this.#taken++;
    else await this.#wait(signal, onWait); // whoever leaves hands its slot on
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#taken--;
      else next();
    }
  }

  async #wait(signal: AbortSignal, onWait: () => void): Promise<void> {
    if (this.#waiting.length >= this.#maxWaiting) {
      throw new PyroError("DENIED", `${this.#most} calls are at work and ${this.#maxWaiting} wait for their turn; that is as many as this server takes.`, { hint: "Try again when some of them are done." });
    }
    if (signal.aborted) throw cancelled(signal);
    onWait();
    await new Promise<void>((resolve, reject) => {
      const turn = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = () => {
        this.#waiting.splice(this.#waiting.indexOf(turn), 1);
        reject(cancelled(signal));
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(turn);
    });
  }
}
