/**
 * When a guest that has not said hello counts as dead. Seconds alone can't tell: thirty guests that boot at once on two cores
 * each need a minute and are fine. So the deadline counts what the guest did with the host, and time only where it did nothing.
 */
import { PyroError } from "../base/error.js";
import { cancelled, follow, whenAborted } from "../base/deadline.js";
import type { RunningVm, VmExit, VmProgress } from "./vmm.js";

export interface BootLimits {
  /** Processor time without a hello; a cold boot under emulation takes about 3 s of it. */
  cpuMs: number;
  /** Time in which less than `stallCpuMs` was used and nothing came from the console: it waits for what never comes. */
  stallMs: number;
  stallCpuMs: number;
  /** Whatever happens. */
  totalMs: number;
  /** Between two looks. */
  lookMs: number;
}

/** A starved guest among 64 on two cores still gets 1.8 s of processor time in 60 s; one that waits for what never comes uses 0.6 s for its timers. */
export const bootLimits: BootLimits = { cpuMs: 60_000, stallMs: 60_000, stallCpuMs: 1000, totalMs: 900_000, lookMs: 500 };

/**
 * Settles as `hello` does, unless the VM ends first or makes no progress: BOOT_FAILED with the reason and the console's end.
 * `hello` gets a signal that aborts when nobody waits for it any more. The VM is not ended: whoever started it ends it.
 */
export async function bootDeadline<T>(vm: RunningVm, hello: (abort: AbortSignal) => Promise<T>, signal?: AbortSignal, limits: BootLimits = bootLimits): Promise<T> {
  const over = follow(signal);
  let forget = () => {};
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = () => reject(cancelled(signal));
    forget = whenAborted(signal, onAbort);
    if (signal?.aborted) onAbort();
  });
  const ended = vm.exited.then((exit): never => {
    if (exit.reason === "ttl") throw new PyroError("TIMEOUT", "The VM's time to live ended before its guest was ready.", { hint: "Give a larger --ttl-seconds (ttl_seconds)." });
    throw bootFailed(vm, exitReason(exit), exit.hint);
  });
  const stuck = watch(vm, limits, over.signal).then((reason): never => {
    throw bootFailed(vm, reason);
  });
  for (const each of [aborted, ended, stuck]) each.catch(() => {});
  try {
    const work = hello(over.signal);
    work.catch(() => {});
    // When the VM dies its port closes too, and the hello may fail first: the VM's end is the better answer.
    const told = work.catch(async (error: unknown) => {
      if (!signal?.aborted) await Promise.race([ended, pause(300, over.signal)]);
      throw error;
    });
    return await Promise.race([told, ended, stuck, aborted]);
  } finally {
    over.abort();
    forget();
  }
}

/** Resolves with the reason once a limit is passed; never after `over`. */
async function watch(vm: RunningVm, limits: BootLimits, over: AbortSignal): Promise<string> {
  const begin = performance.now(); // of a clock that nobody sets
  let mark: { at: number } & VmProgress = { at: begin, cpuMs: 0, consoleBytes: 0 };
  for (;;) {
    await pause(limits.lookMs, over);
    if (over.aborted) return await new Promise(() => {});
    const { cpuMs, consoleBytes } = await vm.progress();
    const now = performance.now();
    if (cpuMs !== undefined && cpuMs > limits.cpuMs) return `it used ${seconds(cpuMs)} of processor time without a hello`;
    if (now - begin > limits.totalMs) return `it did not say hello within ${seconds(limits.totalMs)}`;
    // Where the host does not tell processor times, only the console shows life.
    const used = cpuMs === undefined || mark.cpuMs === undefined ? 0 : cpuMs - mark.cpuMs;
    if (used >= limits.stallCpuMs || consoleBytes !== mark.consoleBytes) mark = { at: now, cpuMs, consoleBytes };
    else if (now - mark.at > limits.stallMs) return `it did nothing for ${seconds(limits.stallMs)}`;
  }
}

function bootFailed(vm: RunningVm, reason: string, hint?: string): PyroError {
  const console = vm.console();
  const end = console === "" ? "Its console stayed empty." : `The end of its console:\n${console}`;
  return new PyroError("BOOT_FAILED", `The guest did not come up under ${vm.accelerator}: ${reason}.\n${end}`, {
    hint: vm.accelerator === "kvm" ? "PYRO_ACCELERATOR=tcg runs it without hardware virtualisation. `pyro doctor` tells what this host can do." : hint ?? "`pyro doctor` tells what this host can do.",
  });
}

function exitReason(exit: VmExit): string {
  if (exit.reason === "killed") return "it was ended";
  const said = exit.stderr === "" ? "" : `: ${exit.stderr}`;
  if (exit.reason === "guest") return `the guest powered off or crashed${said}`;
  return `the monitor ended with ${exit.signal ?? `status ${exit.code}`}${said}`;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}

function pause(ms: number, over: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (over.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      over.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    over.addEventListener("abort", done, { once: true });
  });
}
