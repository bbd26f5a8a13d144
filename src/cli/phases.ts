import { toJson } from "../base/json.js";
import type { Phase, PullProgress } from "../core/index.js";
import { formatBytes, type Output } from "./render.js";

/** Whose lines they are. */
type Verb = "run" | "demo" | "pull" | "warm" | "create" | "start";

let lastPhase = "";
let lastMessage = "";

/**
 * Shows one event of a pull: a line when a phase begins or has something new to say; in a terminal the events between replace
 * each other, elsewhere they are not shown.
 */
export function pullLine(output: Output, verb: Verb, progress: PullProgress): void {
  const { phase, environment, message, doneBytes, totalBytes, layer } = progress;
  const amount = doneBytes === undefined ? "" : totalBytes === undefined ? formatBytes(doneBytes) : `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`;
  const head = `[${verb}] phase=${phase} environment=${environment}`;
  if (phase !== lastPhase || (message ?? "") !== lastMessage) {
    lastPhase = phase;
    lastMessage = message ?? "";
    output.line(message === undefined ? head : `${head} message=${JSON.stringify(message)}`);
  }
  if (layer !== undefined && layer.doneBytes === layer.totalBytes) output.line(`${head} layer=${layer.digest} size=${JSON.stringify(formatBytes(layer.totalBytes))}`);
  if (amount !== "") output.status(`${head} ${amount}`);
}

/** The same event for a program: one line of JSON on standard error. */
export function pullJson(output: Output, progress: PullProgress): void {
  output.line(JSON.stringify(toJson(progress)));
}

/** Shows what whoever asked for a VM has to know because there is none; also to those who want no lines of ours. */
export function warningLine(output: Output, phase: Phase): void {
  if ("warning" in phase) output.line(`warning: ${phase.warning}`);
}

/** Shows one step towards a VM. The line of `exec` and `start` say that of the verb they belong to. */
export function phaseLine(output: Output, verb: Verb, environment: string, phase: Phase): void {
  if (phase.phase === "pull") return pullLine(output, verb, phase.progress);
  const message = "kvmReason" in phase ? phase.kvmReason : messages[phase.phase];
  const how = phase.phase !== "start" ? "" : "accelerator" in phase ? ` accelerator=${phase.accelerator}` : ` execution_mode=${phase.executionMode}`;
  output.line(`[${verb}] phase=${phase.phase} environment=${environment}${how}${message === undefined ? "" : ` message=${JSON.stringify(message)}`}`);
}

const messages: Record<Exclude<Phase["phase"], "pull">, string | undefined> = {
  probe: "trying whether a guest runs under KVM; done once",
  template: "booting and freezing a VM, for this and later ones to be forked from",
  waiting: "another process makes what is needed",
  start: undefined,
  exec: undefined,
};
