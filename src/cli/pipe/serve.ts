/** Answers requests from one stream on another, many at once, until the first one ends. */
import type { Readable, Writable } from "node:stream";
import { cancelled, sleep } from "../../base/deadline.js";
import { PyroError, toPyroError } from "../../base/error.js";
import { nearest } from "../../base/nearest.js";
import type { Phase } from "../../core/index.js";
import { show, isObject } from "./arguments.js";
import { Lines } from "./lines.js";
import { BadMessage, errorLine, notificationLine, parseMessage, resultLine, rpcCodes, type Message, type RequestId } from "./message.js";
import type { Method } from "./methods.js";

export const maxLineBytes = 8 << 20;
/** Requests under way. What they can hold in memory is what their `capture_bytes` allow. */
export const maxRequests = 256;
/** How long what was cancelled has to end in good order when the client is gone, milliseconds; the keepers end the rest. */
const endMs = 2000;
/** How long the last answers have to be taken then, milliseconds. */
const lastAnswersMs = 200;

/**
 * Serves `methods` until `input` ends or `signal` aborts; then everything that is under way is cancelled. Resolves when that is over. While `output`
 * takes no more, no request is begun, and no more than one line's worth of them is read ahead. Rejects when `input` breaks.
 */
export async function servePipe(input: Readable, output: Writable, methods: ReadonlyMap<string, Method>, signal: AbortSignal): Promise<void> {
  const gone = new AbortController();
  const over = AbortSignal.any([gone.signal, signal]);
  const lines = new Lines(maxLineBytes);
  const running = new Map<RequestId, AbortController>();
  const work = new Set<Promise<void>>();

  const send = (line: string) => {
    if (!output.destroyed && output.errored === null) output.write(line);
  };

  const takeLines = () => {
    while (!over.aborted && !output.writableNeedDrain) {
      const line = lines.take();
      if (line === undefined) break;
      takeLine(line);
    }
    if (lines.bytes > maxLineBytes) input.pause();
    else if (input.isPaused()) input.resume();
  };

  const takeLine = (line: Buffer | "tooLong") => {
    try {
      if (line === "tooLong") throw new BadMessage("request", `The line is longer than ${maxLineBytes} bytes.`, "Send less at once.");
      const message = parseMessage(line);
      if (message === undefined) return;
      if (message.method === "cancel") cancel(message);
      else if (message.id !== undefined) begin(message.id, message);
      // Other notifications mean nothing to us, and nobody waits for an answer.
    } catch (error) {
      send(error instanceof BadMessage ? errorLine(error.id, error.rpcCode, error) : errorLine(null, rpcCodes.internal, toPyroError(error)));
    }
  };

  const cancel = ({ id, params }: Message) => {
    if (id !== undefined) throw new BadMessage("request", "cancel is a notification and has no id of its own.", 'It is {"jsonrpc":"2.0","method":"cancel","params":{"id":1}}.', id);
    const wanted = isObject(params) ? params["id"] : undefined;
    running.get(wanted as RequestId)?.abort(new PyroError("CANCELLED", "Cancelled by the client.")); // it may have been answered meanwhile
  };

  const begin = (id: RequestId, { method: name, params }: Message) => {
    if (running.has(id)) throw new BadMessage("request", `A request with the id ${show(id)} is under way.`, "Give each request an id of its own.");
    const method = methods.get(name);
    if (method === undefined) {
      const near = nearest(name, [...methods.keys()]);
      const hint = `${near.length === 0 ? "" : `Did you mean ${near.join(" or ")}? `}There are ${[...methods.keys()].join(", ")}.`;
      return send(errorLine(id, rpcCodes.method, new PyroError("INVALID_ARGUMENT", `There is no method ${show(name)}.`, { hint })));
    }
    if (running.size >= maxRequests) return send(errorLine(id, rpcCodes.failed, new PyroError("DENIED", `${maxRequests} requests are under way; no more are taken.`, { hint: "Wait for the answer to one of them." })));
    const controller = new AbortController();
    running.set(id, controller);
    const task = answer(id, method, params, controller.signal).then((line) => {
      running.delete(id);
      work.delete(task);
      send(line);
    });
    work.add(task);
  };

  const answer = async (id: RequestId, method: Method, params: unknown, signal: AbortSignal): Promise<string> => {
    const onPhase = (phase: Phase) => {
      if (running.has(id) && !output.writableNeedDrain) send(notificationLine("progress", { id, ...phase })); // news that nobody reads are not kept
    };
    try {
      return resultLine(id, await method.run(method.parse(params), { signal, onPhase }));
    } catch (error) {
      const failure = signal.aborted ? cancelled(signal) : failureOf(error);
      return errorLine(id, failure.code === "INVALID_ARGUMENT" ? rpcCodes.params : failure.code === "INTERNAL" ? rpcCodes.internal : rpcCodes.failed, failure);
    }
  };

  try {
    await new Promise<void>((resolve, reject) => {
      over.addEventListener("abort", () => {
        // One by one: a signal made of ours and `over` for each request would be remembered by `over` for as long as we live.
        for (const each of running.values()) each.abort(over.reason);
        resolve();
      }, { once: true });
      if (over.aborted) resolve();
      input.on("data", (chunk: Buffer) => {
        lines.add(chunk);
        takeLines();
      });
      output.on("drain", takeLines);
      for (const event of ["end", "close"]) input.once(event, () => gone.abort(new PyroError("CANCELLED", "The client went away.")));
      input.once("error", (error) => reject(new PyroError(toPyroError(error).code, `Standard input can't be read: ${error.message}`, { cause: error })));
    });
  } finally {
    gone.abort(new PyroError("CANCELLED", "The pipe broke."));
    input.pause();
    output.off("drain", takeLines);
    await within(endMs, Promise.allSettled(work));
    await within(lastAnswersMs, new Promise<void>((resolve) => output.write("", () => resolve())));
    // What nobody takes now must not keep us.
    if (output.writableLength > 0) output.destroy();
  }
}

/** An answer that can't be written down is a fault of its size: a string of V8 ends at half a gigabyte. */
function failureOf(error: unknown): PyroError {
  if (error instanceof RangeError && error.message === "Invalid string length") return new PyroError("UNSUPPORTED", "The answer is too long for one line.", { hint: "Give a smaller capture_bytes.", cause: error });
  return toPyroError(error);
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const enough = new AbortController();
  await Promise.race([work, sleep(ms, enough.signal).catch(() => {})]);
  enough.abort();
}
