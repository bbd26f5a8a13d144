/** One change of a text as a unified diff, for people. */

const contextLines = 3;

/** The lines that differ, with three around them; `-` and `+` before what goes and comes. */
export function diff(file: string, before: string | undefined, after: string | undefined): string[] {
  const old = linesOf(before);
  const fresh = linesOf(after);
  let head = 0;
  while (head < old.length && head < fresh.length && old[head] === fresh[head]) head++;
  let tail = 0;
  while (tail < old.length - head && tail < fresh.length - head && old.at(-1 - tail) === fresh.at(-1 - tail)) tail++;
  const from = Math.max(0, head - contextLines);
  const after3 = Math.min(contextLines, tail);
  const range = (lines: readonly string[]) => `${lines.length === 0 ? 0 : from + 1},${lines.length - tail + after3 - from}`;
  return [
    `--- ${before === undefined ? "/dev/null" : file}`,
    `+++ ${after === undefined ? "/dev/null" : file}`,
    `@@ -${range(old)} +${range(fresh)} @@`,
    ...old.slice(from, head).map((line) => ` ${line}`),
    ...old.slice(head, old.length - tail).map((line) => `-${line}`),
    ...fresh.slice(head, fresh.length - tail).map((line) => `+${line}`),
    ...old.slice(old.length - tail, old.length - tail + after3).map((line) => ` ${line}`),
  ];
}

/** A last line without a newline differs from one with it. */
function linesOf(text: string | undefined): string[] {
  if (text === undefined || text === "") return [];
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  else lines[lines.length - 1] += "\n\\ No newline at end of file";
  return lines;
}
