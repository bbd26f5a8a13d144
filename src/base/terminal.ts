/** The terminal that is our standard input: its modes, and whether it is ours at the moment. */
import { readFile } from "node:fs/promises";
import { keepChild, keepTail } from "./child.js";
import { PyroError } from "./error.js";
import { harmlessLine } from "./harmless.js";
import { nativeProgram } from "./paths.js";

/** Between its two signals the keeper puts the terminal back; a serial line may have to send what it still has before that. */
const restoreMs = 5000;

export interface RawTerminal {
  /** Puts the modes back that it had before. Safe to call again. */
  restore(): Promise<void>;
}

/** Puts the terminal into raw mode. Its modes come back with `restore` and when this process ends, SIGKILL included. Throws INVALID_ARGUMENT where there is no terminal. */
export async function rawTerminal(): Promise<RawTerminal> {
  const keeper = await keepChild(nativeProgram("pyro-keeper"), ["terminal"], { stdio: [0, "pipe", "pipe"], graceMs: restoreMs });
  const stderr = keepTail(keeper.stdio[2]!, 1024);
  const isRaw = await new Promise<boolean>((resolve) => {
    keeper.stdio[1]!.once("data", () => resolve(true));
    void keeper.exited.then(() => resolve(false), () => resolve(false));
  });
  if (!isRaw) throw new PyroError("INVALID_ARGUMENT", `The terminal on standard input can't be used: ${harmlessLine(stderr().trim(), 200)}`, { hint: "Leave out -t." });
  return { restore: async () => void (await keeper.end()) };
}

/** Whether what is typed is for us. False for a shell's job in the background; true where there is no job control. */
export async function inForeground(): Promise<boolean> {
  const stat = await readFile("/proc/self/stat", "latin1");
  // proc(5): behind the name in parentheses come state, parent, process group, session, terminal, and the group in its foreground (-1 without one).
  const [, , group, , , foreground] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return foreground === group || Number(foreground) <= 0;
}
