/** A change of a client's configuration: shown, agreed to, made. */
import { harmlessLine } from "../base/harmless.js";
import { applyChange, diff, type ConfigChange } from "../core/index.js";
import { confirm } from "./confirm.js";
import type { CommandContext } from "./program.js";

/** A configuration may be one line of megabytes. */
const maxLine = 400;

/** `yes`: nobody is asked. `unasked` is the command that asks nobody. Returns whether the change was made. */
export async function showAndApply(change: ConfigChange, yes: boolean | undefined, unasked: string, context: CommandContext): Promise<boolean> {
  const { output } = context;
  output.result(`${diff(change.file, change.before, change.after).flatMap((line) => line.split("\n")).map((line) => coloured(line, context)).join("\n")}\n`);
  if (yes !== true && !(await confirm("Make this change?", unasked, context))) {
    output.line("[mcp] result=unchanged");
    context.exitStatus = 1;
    return false;
  }
  await applyChange(change);
  return true;
}

function coloured(line: string, { output }: CommandContext): string {
  const shown = harmlessLine(line, maxLine).replaceAll("\\t", "\t");
  if (/^(---|\+\+\+|@@) /.test(line)) return output.bold(shown);
  if (line.startsWith("-")) return output.red(shown);
  return line.startsWith("+") ? output.green(shown) : shown;
}
