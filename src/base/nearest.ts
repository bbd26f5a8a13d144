/**
 * The candidates that `word` was probably meant to be, nearest first, at most three: those that begin with it, and those
 * that a few slips of the keyboard (a third of the length, at least one) make out of it.
 */
export function nearest(word: string, candidates: readonly string[]): string[] {
  const typed = word.toLowerCase().slice(0, maxLength);
  if (typed === "") return [];
  const slips = Math.max(1, Math.floor(typed.length / 3));
  return [...new Set(candidates)]
    .map((candidate) => ({ candidate, distance: candidate.toLowerCase().startsWith(typed) ? 0 : distance(typed, candidate.toLowerCase().slice(0, maxLength)) }))
    .filter((each) => each.distance <= slips)
    .sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1))
    .slice(0, 3)
    .map((each) => each.candidate);
}

/** Longer words are compared by their beginning: the work grows with the square of the length. */
const maxLength = 64;

/** How many letters were left out, added, changed or swapped with their neighbour (optimal string alignment). */
function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const changed = a[row - 1] === b[column - 1] ? 0 : 1;
      let best = Math.min(last[column]! + 1, current[column - 1]! + 1, last[column - 1]! + changed);
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) best = Math.min(best, beforeLast[column - 2]! + 1);
      current.push(best);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length]!;
}
