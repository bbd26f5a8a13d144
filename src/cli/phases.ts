import type { PullProgress } from "../core/index.js";
import { formatBytes, type Output } from "./render.js";

let lastPhase = "";
let lastMessage = "";

/**
 * Shows one event of a pull: a line when a phase begins or has something new to say; in a terminal the events between replace
 * each other, elsewhere they are not shown.
 */
export function pullLine(output: Output, verb: "run" | "pull", progress: PullProgress): void {
  const { phase, environment, message, doneBytes, totalBytes } = progress;
  const amount = doneBytes === undefined ? "" : totalBytes === undefined ? formatBytes(doneBytes) : `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`;
  const head = `[${verb}] phase=${phase} environment=${environment}`;
  if (phase !== lastPhase || (message ?? "") !== lastMessage) {
    lastPhase = phase;
    lastMessage = message ?? "";
    output.line(message === undefined ? head : `${head} message=${JSON.stringify(message)}`);
  }
  if (amount !== "") output.status(`${head} ${amount}`);
}
