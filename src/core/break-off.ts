/** Ending what runs in a guest without depending on the guest: one that hangs, or does not want to, never says that it did. */
import type { Readable } from "node:stream";
import { PyroError } from "../base/error.js";

/** How long a guest that was told to end something has to say that it did, milliseconds. */
const killGraceMs = 3000;

export interface Breakable<T> {
  /** Undefined where the guest was given up. */
  result: Promise<T | undefined>;
  /** Settles as `work` does; rejects with GUEST_LOST where the guest was given up. */
  unlessGivenUp<U>(work: Promise<U>): Promise<U>;
  breakOff(): void;
}

/** After `breakOff` the guest has its time to answer; then `result` comes without it, and `outputs` break. */
export function breakable<T>(result: Promise<T>, outputs: readonly Readable[], cancel: () => void): Breakable<T> {
  let timer: NodeJS.Timeout | undefined;
  let isOver = false;
  let giveUp!: (nothing: undefined) => void;
  const givenUp = new Promise<undefined>((resolve) => (giveUp = resolve));
  return {
    result: Promise.race([result, givenUp]).finally(() => {
      isOver = true;
      clearTimeout(timer);
    }),
    unlessGivenUp: (work) => Promise.race([work, givenUp.then(() => Promise.reject(silent()))]),
    breakOff: () => {
      cancel();
      if (isOver) return;
      timer ??= setTimeout(() => {
        giveUp(undefined);
        for (const output of outputs) output.destroy(silent());
      }, killGraceMs);
    },
  };
}

function silent(): PyroError {
  return new PyroError("GUEST_LOST", `The guest did not say within ${killGraceMs / 1000} s that it ended what it was told to end.`);
}
