/** Ollama's chat API (docs/api.md in its repository, "Generate a chat completion"): one answer of a model, as it comes. What answers is no friend: all of it has limits. */
import { cancelled } from "../base/deadline.js";
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { settings } from "../base/settings.js";

export interface ToolCall {
  function: { name: string; arguments: unknown };
}

export interface ChatMessage {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  tool_calls?: readonly ToolCall[];
  tool_name?: string;
}

/** A function that the model may call; `parameters` is a JSON schema. */
export interface Tool {
  name: string;
  description: string;
  parameters: Readonly<Record<string, unknown>>;
}

export interface ChatRequest {
  model: string;
  messages: readonly ChatMessage[];
  tools: readonly Tool[];
}

export interface ChatOptions {
  /** Where Ollama is; by OLLAMA_HOST when left out. */
  address?: URL;
  signal?: AbortSignal;
  /** Called with each piece of the answer. */
  onText?: (piece: string) => void;
  /** How long nothing may come, milliseconds; default 240,000: a large model is read from disk first. */
  silenceMs?: number;
}

export interface ChatAnswer {
  content: string;
  toolCalls: readonly ToolCall[];
}

const defaultSilenceMs = 240_000;
/** Of one answer. A model that goes round in circles writes for ever. */
const maxAnswerBytes = 4 << 20;
const maxLineBytes = 1 << 20;
const maxContentLength = 65_536;
const maxToolCalls = 16;
const maxErrorBytes = 65_536;

/** Throws HOST_MISSING (nobody answers), NOT_FOUND (no such model), UNSUPPORTED (it can't call tools), PROTOCOL, TIMEOUT, CANCELLED. */
export async function chat(request: ChatRequest, options: ChatOptions = {}): Promise<ChatAnswer> {
  const { address = ollamaAddress(), signal, silenceMs = defaultSilenceMs } = options;
  const silence = new AbortController();
  const abort = signal === undefined ? silence.signal : AbortSignal.any([signal, silence.signal]);
  const startTimer = () => setTimeout(() => silence.abort(), silenceMs);
  let timer = startTimer();
  const heard = () => {
    clearTimeout(timer);
    timer = startTimer();
  };
  try {
    const response = await fetch(new URL("api/chat", address), { method: "POST", headers: { "content-type": "application/json" }, body: bodyOf(request), redirect: "manual", signal: abort });
    heard();
    if (!response.ok) throw await refusal(response, request.model, heard);
    return await readAnswer(response, options.onText, heard);
  } catch (error) {
    if (error instanceof PyroError) throw error;
    if (signal?.aborted) throw cancelled(signal);
    if (silence.signal.aborted) throw new PyroError("TIMEOUT", `Ollama at ${address.origin} said nothing for ${silenceMs / 1000} s.`, { cause: error, hint: "A smaller --model answers sooner; `ollama ps` tells what it does." });
    throw unreachable(error, address);
  } finally {
    clearTimeout(timer);
  }
}

/** As Ollama itself reads OLLAMA_HOST: scheme and port may be missing; an address that servers listen on stands for this host. Throws INVALID_ARGUMENT. */
export function ollamaAddress(host: string | undefined = settings.ollamaHost()): URL {
  const text = host?.trim() || "127.0.0.1:11434";
  const hasScheme = text.includes("://");
  const [, authority = "", path = ""] = /^(?:[a-z]+:\/\/)?([^/]*)(.*)$/i.exec(text)!;
  const named = authority.startsWith(":") ? `127.0.0.1${authority}` : authority;
  const withPort = hasScheme || /:[0-9]+$/.test(named) ? named : `${named}:11434`;
  const url = URL.canParse(`http://${withPort}`) ? new URL(`${hasScheme ? text.split("://")[0] : "http"}://${withPort}${path.endsWith("/") ? path : `${path}/`}`) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol) || url.hostname === "") throw new PyroError("INVALID_ARGUMENT", `OLLAMA_HOST is "${harmlessLine(text, 200)}"; that is no address.`, { hint: "Set it to HOST, HOST:PORT or http://HOST:PORT, or unset it for 127.0.0.1:11434." });
  if (url.hostname === "0.0.0.0") url.hostname = "127.0.0.1";
  if (url.hostname === "[::]") url.hostname = "[::1]";
  return url;
}

function bodyOf({ model, messages, tools }: ChatRequest): string {
  return JSON.stringify({ model, messages, stream: true, tools: tools.map((each) => ({ type: "function", function: each })) });
}

/** A stream of JSON objects, a line each; the last one is `done`. */
async function readAnswer(response: Response, onText: ChatOptions["onText"], heard: () => void): Promise<ChatAnswer> {
  const toolCalls: ToolCall[] = [];
  let content = "";
  let done = false;
  for await (const line of linesOf(response, heard)) {
    const { message, error, done: last } = parseLine(line);
    if (error !== undefined && error !== null) throw new PyroError("PROTOCOL", `Ollama broke off: ${harmlessLine(String(error), 500)}`, { hint: "Its own log tells more." });
    const { text, calls } = partsOf(message);
    content += text;
    toolCalls.push(...calls);
    if (content.length > maxContentLength) throw new PyroError("PROTOCOL", `The model's answer is longer than ${maxContentLength} characters.`, { hint: "Another --model may come to an end." });
    if (toolCalls.length > maxToolCalls) throw new PyroError("PROTOCOL", `The model called tools more than ${maxToolCalls} times in one answer.`, { hint: "Another --model may do better." });
    if (text !== "") onText?.(text);
    done ||= last === true;
    if (done) break;
  }
  if (!done) throw new PyroError("PROTOCOL", "Ollama's answer broke off before its end.", { hint: "Its own log tells more; was it stopped, or out of memory?" });
  return { content, toolCalls };
}

async function* linesOf(response: Response, heard: () => void): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  let total = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    heard();
    total += chunk.length;
    if (total > maxAnswerBytes) throw new PyroError("PROTOCOL", `Ollama's answer has more than ${maxAnswerBytes} bytes.`, { hint: "Another --model may come to an end." });
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(10); end !== -1; end = rest.indexOf(10)) {
      if (end > 0) yield rest.toString("utf8", 0, end);
      rest = rest.subarray(end + 1);
    }
    if (rest.length > maxLineBytes) throw new PyroError("PROTOCOL", `A line of Ollama's answer has more than ${maxLineBytes} bytes.`);
  }
  if (rest.length > 0) yield rest.toString("utf8");
}

function parseLine(line: string): { message?: unknown; error?: unknown; done?: unknown } {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // said below
  }
  throw new PyroError("PROTOCOL", `What answers is not Ollama: it said ${JSON.stringify(harmlessLine(line, 100))}.`, { hint: "OLLAMA_HOST says where it is looked for." });
}

function partsOf(message: unknown): { text: string; calls: ToolCall[] } {
  const { content, tool_calls: calls } = (message ?? {}) as { content?: unknown; tool_calls?: unknown };
  return {
    text: typeof content === "string" ? content : "",
    calls: (Array.isArray(calls) ? (calls as { function?: { name?: unknown; arguments?: unknown } }[]) : []).map((each) => ({ function: { name: String(each?.function?.name ?? ""), arguments: each?.function?.arguments ?? {} } })),
  };
}

async function refusal(response: Response, model: string, heard: () => void): Promise<PyroError> {
  let text = "";
  for await (const line of linesOf(response, heard)) if ((text += line).length > maxErrorBytes) break;
  let said = text;
  try {
    said = String((JSON.parse(text) as { error?: unknown }).error ?? text);
  } catch {
    // not as Ollama says it; a proxy, say
  }
  const shown = harmlessLine(said.trim(), 500);
  if (response.status === 404 && /model/i.test(said)) return new PyroError("NOT_FOUND", `Ollama has no model ${model}: ${shown}`, { hint: `ollama pull ${model}` });
  if (/does not support tools/i.test(said)) return new PyroError("UNSUPPORTED", `The model ${model} can't call tools: ${shown}`, { hint: "Take one that can: https://ollama.com/search?c=tools" });
  return new PyroError("PROTOCOL", `Ollama answered with status ${response.status}: ${shown}`, { hint: "Its own log tells more." });
}

/** `fetch` says little itself; the cause does. */
function unreachable(error: unknown, address: URL): PyroError {
  const { cause, message } = error as Error;
  const why = cause instanceof Error ? ("code" in cause && cause.message === "" ? String(cause.code) : cause.message) : message;
  if (cause instanceof Error && "code" in cause && ["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"].includes(String(cause.code))) return new PyroError("PROTOCOL", `Ollama's answer broke off before its end: ${harmlessLine(why, 200)}`, { cause: error, hint: "Its own log tells more; was it stopped, or out of memory?" });
  return new PyroError("HOST_MISSING", `No Ollama answers at ${address.origin}: ${harmlessLine(why, 200)}`, { cause: error, hint: "Start it with `ollama serve` (https://ollama.com/download), or say with OLLAMA_HOST where it is." });
}
