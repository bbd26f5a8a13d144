/** One client, over a pair of streams: its end is ours. */
import { PassThrough, type Readable, type Writable } from "node:stream";
import { isJSONRPCErrorResponse, isJSONRPCRequest, isJSONRPCResultResponse, type JSONRPCMessage, type MessageExtraInfo, type Transport } from "@modelcontextprotocol/server";
import { serveStdio as serve, StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { createServerWith, type CreateServerOptions } from "./server.js";
import { createShared, type VmLimits } from "./shared.js";

/** Of one message; `files` and the message around them fit. */
const maxMessageBytes = 8 << 20;
/** Answers that the client has not read, bytes; no more is read from it until it has. */
const maxUnreadBytes = 1 << 20;
/** Requests without an answer yet; no more are read until there are fewer. */
const maxUnanswered = 512;
/** Of those that may be open for as long as the connection: what is asked besides them is still read. */
const maxSubscriptions = 64;
/** Bytes that the client may send ahead of what is read; so its end is seen although nothing more is read from it. */
const maxAheadBytes = 1 << 20;

export interface ServeStdioOptions extends CreateServerOptions, VmLimits {
  input: Readable;
  output: Writable;
  /** Ends the connection. */
  signal?: AbortSignal;
  /** Told what was wrong with what the client sent. */
  onError?: (error: Error) => void;
}

/** Resolves when the connection is over, whoever ended it. What was under way is aborted then, and its VMs end with this process if they did not before. */
export async function serveStdio({ input, output, signal, onError, ...options }: ServeStdioOptions): Promise<void> {
  const shared = createShared(options);
  const transport = new PacedTransport(input, output);
  const handle = serve(() => createServerWith(options, shared), { transport, maxSubscriptions, ...(onError && { onerror: onError }) });
  const end = () => void handle.close();
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted) end();
  await transport.ended;
  await shared.tidied();
  signal?.removeEventListener("abort", end);
}

/** Reads no more from a client than it takes: one that sends and never reads would fill our memory. */
class PacedTransport implements Transport {
  onclose?: () => void;
  onerror?: (error: Error) => void;
  onmessage?: <T extends JSONRPCMessage>(message: T, extra?: MessageExtraInfo) => void;
  readonly ended: Promise<void>;
  readonly #inner: StdioServerTransport;
  readonly #input = new PassThrough({ highWaterMark: maxAheadBytes });
  readonly #output: Writable;
  readonly #unanswered = new Set<string | number>();
  #isOver = false;

  constructor(input: Readable, output: Writable) {
    this.#output = output.setMaxListeners(0); // each answer that waits there has some
    input.on("error", (error) => this.#input.destroy(error));
    input.on("close", () => this.#input.end()); // also where it was no proper end
    input.on("end", () => {
      if (this.#input.isPaused()) void this.close(); // it won't read what it was not told yet
    });
    this.#inner = new StdioServerTransport(input.pipe(this.#input), output, { maxBufferSize: maxMessageBytes });
    const inner: Transport = this.#inner;
    this.ended = new Promise((resolve) => {
      Object.assign(inner, {
        onerror: (error: Error) => this.onerror?.(error),
        onmessage: (message: JSONRPCMessage) => this.#receive(message),
        onclose: () => {
          this.#isOver = true;
          this.onclose?.();
          resolve();
        },
      });
    });
    output.on("drain", () => this.#pace());
  }

  start(): Promise<void> {
    return this.#inner.start();
  }

  async send(message: JSONRPCMessage): Promise<void> {
    const sent = this.#inner.send(message);
    if ((isJSONRPCResultResponse(message) || isJSONRPCErrorResponse(message)) && message.id !== undefined) this.#unanswered.delete(message.id);
    this.#pace();
    await sent;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  #receive(message: JSONRPCMessage): void {
    if (isJSONRPCRequest(message)) this.#unanswered.add(message.id);
    // What was cancelled is not answered.
    else if ("method" in message && message.method === "notifications/cancelled") this.#unanswered.delete((message.params as { requestId?: string | number } | undefined)?.requestId ?? "");
    this.#pace();
    this.onmessage?.(message);
  }

  #pace(): void {
    if (this.#isOver) return;
    const enough = this.#output.writableLength > maxUnreadBytes || this.#unanswered.size > maxUnanswered;
    if (enough && !this.#input.isPaused()) this.#input.pause();
    else if (!enough && this.#input.isPaused()) this.#input.resume();
  }
}
