/** Signals to pyro itself. Each begins an orderly end; a command that runs in a guest gets the first Ctrl-C instead. */
import { PyroError } from "../base/error.js";

export interface Interrupts {
  /** Aborts when pyro is to end; the reason is an `Interrupted`. */
  readonly signal: AbortSignal;
  /** From now on the first SIGINT calls `receive`; the ones after it abort. */
  handFirstTo(receive: () => void): void;
}

/** SIGINT, SIGTERM or SIGHUP ended us; `exitStatus` is 128 and the signal's number. */
export class Interrupted extends PyroError {
  readonly exitStatus: number;
  constructor(name: string, number: number) {
    super("CANCELLED", `Ended by ${name}.`);
    this.exitStatus = 128 + number;
  }
}

export function watchInterrupts(): Interrupts {
  const controller = new AbortController();
  let receiver: (() => void) | undefined;
  const numbers = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const;
  for (const [name, number] of Object.entries(numbers)) {
    process.on(name, () => {
      if (name === "SIGINT" && receiver !== undefined) {
        const receive = receiver;
        receiver = undefined;
        receive();
        return;
      }
      // Told twice: whatever does not listen to the first time is left to the keepers.
      if (controller.signal.aborted) {
        process.removeAllListeners(name);
        process.kill(process.pid, name);
      }
      controller.abort(new Interrupted(name, number));
    });
  }
  return {
    signal: controller.signal,
    handFirstTo: (receive) => {
      receiver = receive;
    },
  };
}
