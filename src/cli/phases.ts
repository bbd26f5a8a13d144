import { toJson } from "../base/json.js";
import type { Phase, PullProgress, Refusal } from "../core/index.js";
import { formatBytes, type Output } from "./render.js";

/** Whose lines they are. */
type Verb = "run" | "demo" | "pull" | "warm" | "build" | "create" | "start";

let lastPhase = "";
let lastMessage = "";
/** Layers that are on their way, by their digests. */
const layersComing = new Map<string, string>();

/**
 * Shows one event of a pull: a line when a phase begins or has something new to say, and when a layer is there. In a terminal the events between replace each
 * other, with a line for each layer that is on its way; elsewhere they are not shown.
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
  if (phase !== "layers") layersComing.clear();
  if (layer !== undefined) {
    const { digest, doneBytes: done, totalBytes: total } = layer;
    // Short, as what does not fit in a terminal's width is cut.
    if (done < total) layersComing.set(digest, `  ${digest.slice("sha256:".length, "sha256:".length + 12)}  ${formatBytes(done)} of ${formatBytes(total)}`);
    else layersComing.delete(digest);
    if (done === total) output.line(`${head} layer=${digest} size=${JSON.stringify(formatBytes(total))}`);
  }
  if (amount !== "") output.status(...layersComing.values(), `[${verb}] ${phase} ${amount} ${environment}`);
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
  publishedLines(output, verb, phase);
}

/** Where the guest's ports are on this host, for whoever wants to use them while the command runs: its result comes too late for that. */
export function publishedLines(output: Output, verb: Verb, phase: Phase): void {
  if (phase.phase === "exec") for (const { protocol, hostIp, hostPort, guestPort } of phase.publishedPorts ?? []) output.line(`[${verb}] published ${protocol} ${hostIp}:${hostPort} guest_port=${guestPort}`);
}

const messages: Record<Exclude<Phase["phase"], "pull">, string | undefined> = {
  probe: "trying whether a guest runs under KVM; done once",
  template: "booting and freezing a VM, for this and later ones to be forked from",
  waiting: "another process makes what is needed",
  start: undefined,
  exec: undefined,
};

/** The most lines about refusals that one command gets: whoever wants more of them reads the audit. */
const maxRefusalLines = 20;

/** Shows what the network refuses the guest, a line each. */
export function refusalLines(output: Output, verb: "run" | "exec" | "build"): (refusal: Refusal) => void {
  let shown = 0;
  return ({ rule, reason, protocol, name, address, port }) => {
    shown++;
    if (shown > maxRefusalLines) return;
    const target = [name, address === undefined ? undefined : `${address}${port === undefined ? "" : `:${port}`}`].filter((each) => each !== undefined).join(" ");
    output.line(`[${verb}] refused ${protocol} ${target} rule=${JSON.stringify(rule)}${reason === "" ? "" : ` reason=${JSON.stringify(reason)}`}`);
    if (shown === maxRefusalLines) output.line(`[${verb}] refused message="no more lines about refusals"`);
  };
}
