// A stand-in for Ollama: it speaks Ollama's API and there is no model behind it. What it answers is what the test says.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface StandInRequest {
  model: string;
  stream: boolean;
  messages: { role: string; content: string; tool_calls?: { function: { name: string; arguments: unknown } }[]; tool_name?: string }[];
  tools: { type: string; function: { name: string; description: string; parameters: unknown } }[];
}

/** One answer: a status with an error, or chunks as Ollama streams them, cut into pieces of `pieceBytes`, then what `end` says. */
export type StandInAnswer =
  | { status: number; error: unknown }
  | { chunks: readonly (string | object)[]; pieceBytes?: number; delayMs?: number; end?: "done" | "break" | "hang" | "nothing" };

export interface StandIn {
  address: URL;
  /** As OLLAMA_HOST has it. */
  host: string;
  requests: StandInRequest[];
  close(): Promise<void>;
}

export const says = (...pieces: readonly string[]): StandInAnswer => ({ chunks: pieces.map((content) => ({ message: { role: "assistant", content }, done: false })) });

export const calls = (...all: readonly { name?: string; arguments: unknown }[]): StandInAnswer => ({
  chunks: all.map((each) => ({ message: { role: "assistant", content: "", tool_calls: [{ function: { name: each.name ?? "vm_run", arguments: each.arguments } }] }, done: false })),
});

/** Answers one after the other; the last one again and again. */
export async function ollamaStandIn(...answers: readonly StandInAnswer[]): Promise<StandIn> {
  const requests: StandInRequest[] = [];
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy());
  });
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    let body = "";
    for await (const chunk of request) body += String(chunk);
    if (request.method !== "POST" || request.url !== "/api/chat") return void response.writeHead(404).end("404 page not found");
    requests.push(JSON.parse(body) as StandInRequest);
    const next = answers[Math.min(requests.length, answers.length) - 1]!;
    if ("status" in next) return void response.writeHead(next.status, { "content-type": "application/json" }).end(typeof next.error === "string" ? JSON.stringify({ error: next.error }) : String(next.error));
    const { chunks, pieceBytes = Infinity, delayMs = 0, end = "done" } = next;
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.flushHeaders();
    const lines = [...chunks, ...(end === "done" ? [{ message: { role: "assistant", content: "" }, done: true, done_reason: "stop", total_duration: 1 }] : [])];
    const bytes = Buffer.from(lines.map((each) => (typeof each === "string" ? each : `${JSON.stringify(each)}\n`)).join(""));
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      response.write(bytes.subarray(at, at + pieceBytes));
      await new Promise((resolve) => (delayMs > 0 ? setTimeout(resolve, delayMs) : setImmediate(resolve)));
    }
    if (end === "break") response.destroy();
    else if (end !== "hang") response.end();
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: new URL(`http://127.0.0.1:${port}/`),
    host: `127.0.0.1:${port}`,
    requests,
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}
