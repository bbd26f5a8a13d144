/** A question that somebody at the terminal answers. */
import { createInterface } from "node:readline";
import { cancelled } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import type { CommandContext } from "./program.js";

/** False unless the answer is yes. Throws INVALID_ARGUMENT where nobody is there to ask, with the command `unasked` as the next step; CANCELLED. */
export async function confirm(question: string, unasked: string, { output, interrupts }: CommandContext): Promise<boolean> {
  if (process.stdin.isTTY !== true) throw new PyroError("INVALID_ARGUMENT", "Nothing was changed: standard input is no terminal to ask on.", { hint: unasked });
  output.line(`${question} [y/N]`);
  const lines = createInterface({ input: process.stdin });
  const { signal } = interrupts;
  let onAbort = () => {};
  try {
    return await new Promise<boolean>((resolve, reject) => {
      lines.once("line", (line) => resolve(/^\s*y(es)?\s*$/i.test(line)));
      lines.once("close", () => resolve(false));
      onAbort = () => reject(cancelled(signal));
      signal.addEventListener("abort", onAbort, { once: true });
    });
  } finally {
    signal.removeEventListener("abort", onAbort);
    lines.close();
  }
}
