import { harmlessLine } from "../base/harmless.js";

/** A path for a message: in quotes, harmless, short. */
export function showPath(path: Buffer): string {
  return `"${harmlessLine(path.toString("utf8", 0, Math.min(path.length, 800)), 200)}"`;
}
