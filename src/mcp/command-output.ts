/** What a command printed: little of it in the result, more of it kept, all of it counted. */
import { Writable } from "node:stream";
import type { ResourceLink } from "@modelcontextprotocol/server";
import { toJson, type Json } from "../base/json.js";
import { harmlessLine } from "../base/harmless.js";
import { Capture, type ExecResult, type Refusal } from "../core/index.js";
import { keptBytes, resultUri, type KeptOutput, type KeptResults, type StreamName } from "./kept-results.js";
import type { Outcome } from "./tool.js";

/** Bytes of each stream that are in a result: a model reads all of it, and pays for it. */
const resultBytes = 64 << 10;

export interface OutputCapture {
  /** For core's options. */
  options: { captureBytes: number; stdout: Writable; stderr: Writable };
  outcome(result: ExecResult): Outcome;
}

export function captureOutput(kept: KeptResults): OutputCapture {
  const captures = { stdout: new Capture(keptBytes), stderr: new Capture(keptBytes) };
  const sink = (capture: Capture) =>
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        capture.add(chunk);
        done();
      },
    });
  return {
    options: { captureBytes: resultBytes, stdout: sink(captures.stdout), stderr: sink(captures.stderr) },
    outcome: (result) => {
      const cut: KeptOutput = {};
      if (result.stdoutTruncated) cut.stdout = captures.stdout.end().text;
      if (result.stderrTruncated) cut.stderr = captures.stderr.end().text;
      const names = Object.keys(cut) as StreamName[];
      const id = names.length === 0 ? "" : kept.keep(cut);
      const links = names.map((name) => linkTo(id, name, cut[name]!, name === "stdout" ? result.stdoutBytes : result.stderrBytes));
      const structured = { ...(toJson(result) as { [key: string]: Json }), ...Object.fromEntries(names.map((name) => [`${name}_resource`, resultUri(id, name)])) };
      return { structured, text: textOf(result), links };
    },
  };
}

function linkTo(id: string, name: StreamName, text: string, totalBytes: number): ResourceLink {
  const whole = totalBytes <= keptBytes;
  return {
    type: "resource_link",
    uri: resultUri(id, name),
    name,
    mimeType: "text/plain",
    size: Buffer.byteLength(text),
    description: whole ? `All ${totalBytes} bytes of ${name}.` : `${keptBytes} of the ${totalBytes} bytes of ${name}, from its beginning and its end. For all of it let the command write a file, and read parts of that.`,
  };
}

function textOf(result: ExecResult): string {
  const { exitCode, signal, timedOut, durationMs, environment, executionMode, stdout, stderr, stdoutBytes, stderrBytes, refusals = [] } = result;
  const how = [timedOut ? "timed_out" : undefined, signal, `${durationMs} ms`, environment, ...(executionMode === "guest" ? [] : [`${executionMode}: NOT ISOLATED`])].filter((each) => each !== undefined);
  const part = (name: string, text: string, bytes: number, truncated: boolean) => (bytes === 0 && text === "" ? [] : [`--- ${name}${truncated ? `, head and tail of ${bytes} bytes` : ""} ---`, text.replace(/\n$/, "")]);
  return [`exit_code=${exitCode} (${how.join(", ")})`, ...part("stdout", stdout, stdoutBytes, result.stdoutTruncated), ...part("stderr", stderr, stderrBytes, result.stderrTruncated), ...refusalLines(refusals)].join("\n");
}

/** Why a connection failed is what a model has to know to do better, and the command can't tell. */
function refusalLines(refusals: readonly Refusal[]): string[] {
  if (refusals.length === 0) return [];
  return ["--- refused by the network's policy ---", ...refusals.map(({ protocol, name, address, port, reason, rule }) => harmlessLine(`${protocol} ${[name, address && `${address}${port === undefined ? "" : `:${port}`}`].filter(Boolean).join(" ")}: ${reason || rule}`, 400))];
}
