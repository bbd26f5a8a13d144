/** Linux signal numbers and names; the numbers are the guest's, which runs Linux whatever the host is. */
import { PyroError } from "../base/error.js";

const names: Record<number, string> = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 10: "SIGUSR1",
  11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP",
  21: "SIGTTIN", 22: "SIGTTOU", 23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO", 30: "SIGPWR", 31: "SIGSYS",
};

/** `SIGKILL` for 9; real-time signals, which have no name of their own, as `SIGRTMIN+n`. */
export function signalName(number: number): string {
  return names[number] ?? `SIGRTMIN+${number - 34}`;
}

/** 9 for 9, `SIGKILL`, `KILL` or `sigkill`. Throws INVALID_ARGUMENT. */
export function toSignalNumber(signal: string | number): number {
  const number = typeof signal === "number" ? signal : /^[0-9]+$/.test(signal) ? Number(signal) : numberOf(signal);
  if (number !== undefined && Number.isInteger(number) && number >= 1 && number <= 64) return number;
  throw new PyroError("INVALID_ARGUMENT", `There is no signal ${JSON.stringify(signal)}.`, { hint: "Give a Linux signal by name, as SIGTERM, or by number, 1 to 64." });
}

function numberOf(name: string): number | undefined {
  const wanted = name.toUpperCase().replace(/^(SIG)?/, "SIG");
  const found = Object.entries(names).find(([, each]) => each === wanted)?.[0];
  if (found !== undefined) return Number(found);
  const realTime = /^SIGRTMIN\+([0-9]{1,2})$/.exec(wanted)?.[1];
  return realTime !== undefined && Number(realTime) <= 30 ? 34 + Number(realTime) : undefined;
}
