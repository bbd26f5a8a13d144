/**
 * QEMU's machine protocol (docs/interop/qmp-spec.txt of QEMU): one JSON object a line. QEMU runs hostile guests, so what it
 * says is taken with limits; what breaks one ends the connection, and every command that waits gets the error.
 */
import type { Duplex } from "node:stream";
import { PyroError } from "../base/error.js";
import { withDeadline } from "../base/deadline.js";
import { sendDescriptor } from "../base/send-descriptor.js";

export const maxLineBytes = 1 << 20;
export const maxDepth = 32;
const maxPending = 64;

type Fields = Record<string, unknown>;

export class Qmp {
  readonly #stream: Duplex;
  readonly #onEvent: (name: string, data: Fields) => void;
  readonly #pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: PyroError) => void }>();
  #parts: Buffer[] = [];
  #partBytes = 0;
  #nextId = 1;
  #failure: PyroError | undefined;

  /** Negotiates at once and waits for nothing: QEMU answers in order, so commands may follow before its greeting has come. */
  constructor(stream: Duplex, onEvent: (name: string, data: Fields) => void = () => {}) {
    this.#stream = stream;
    this.#onEvent = onEvent;
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("error", () => {}); // `close` follows
    stream.on("close", () => this.#fail(new PyroError("VMM_EXITED", "QEMU closed its monitor.")));
    this.#send("qmp_capabilities", {}).catch(() => {});
  }

  /** Runs one command. Rejects with VMM_EXITED, PROTOCOL, TIMEOUT, CANCELLED, or INTERNAL if QEMU refuses the command. */
  execute(command: string, args: Fields = {}, options: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<unknown> {
    return withDeadline(this.#send(command, args), options.timeoutMs ?? 10_000, `QEMU's answer to ${command}`, options.signal);
  }

  /** As `execute`, however long it takes: for whoever ends a QEMU that makes no progress, which on a host with many at once is more than a matter of seconds. */
  order(command: string, args: Fields = {}): Promise<unknown> {
    return this.#send(command, args);
  }

  /** Hands QEMU one end of a new pair of sockets, which it knows as `name` then; gives the other end. Rejects as `execute` does. */
  async handSocket(name: string): Promise<Duplex> {
    let end: Promise<Duplex> | undefined;
    const answer = this.#send("getfd", { fdname: name }, (text) => (end = sendDescriptor(this.#stream, text)));
    answer.catch(() => {}); // it is waited for below
    const socket = await end;
    await withDeadline(answer, 10_000, "QEMU's answer to getfd");
    return socket!;
  }

  #send(command: string, args: Fields, write: (text: string) => unknown = (text) => this.#stream.write(text)): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      if (this.#pending.size >= maxPending) return reject(new PyroError("INTERNAL", `More than ${maxPending} commands wait for QEMU.`));
      const id = this.#nextId++;
      this.#pending.set(id, { resolve, reject });
      write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  #receive(chunk: Buffer): void {
    let rest = chunk;
    while (this.#failure === undefined) {
      const end = rest.indexOf(10);
      const part = end < 0 ? rest : rest.subarray(0, end);
      this.#partBytes += part.length;
      if (this.#partBytes > maxLineBytes) return this.#refuse(`a line of more than ${maxLineBytes} bytes`);
      if (part.length > 0) this.#parts.push(part);
      if (end < 0) return;
      const line = Buffer.concat(this.#parts).toString("utf8").trim();
      this.#parts = [];
      this.#partBytes = 0;
      if (line !== "") this.#take(line);
      rest = rest.subarray(end + 1);
    }
  }

  #take(line: string): void {
    if (depthOf(line) > maxDepth) return this.#refuse(`JSON nested deeper than ${maxDepth}`);
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      return this.#refuse("a line that is not JSON");
    }
    if (!isFields(message)) return this.#refuse("a line that is not an object");
    if (typeof message["event"] === "string") return this.#onEvent(message["event"], isFields(message["data"]) ? message["data"] : {});
    if ("QMP" in message) return;
    const waiting = typeof message["id"] === "number" ? this.#pending.get(message["id"]) : undefined;
    if (waiting === undefined) return this.#refuse("an answer to nothing that was asked");
    this.#pending.delete(message["id"] as number);
    if ("return" in message) return waiting.resolve(message["return"]);
    const error = message["error"];
    const text = isFields(error) && typeof error["desc"] === "string" ? error["desc"].slice(0, 1000) : "no reason given";
    waiting.reject(new PyroError("INTERNAL", `QEMU refused a command: ${text}`));
  }

  #refuse(what: string): void {
    this.#fail(new PyroError("PROTOCOL", `QEMU's monitor sent ${what}.`));
    this.#stream.destroy();
  }

  #fail(error: PyroError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#parts = [];
    for (const each of this.#pending.values()) each.reject(error);
    this.#pending.clear();
  }
}

/** The deepest nesting of brackets outside strings; JSON.parse would recurse as deep. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (inString) {
      if (character === "\\") at++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "{" || character === "[") deepest = Math.max(deepest, ++depth);
    else if (character === "}" || character === "]") depth--;
  }
  return deepest;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
