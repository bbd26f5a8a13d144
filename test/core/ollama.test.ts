import { afterEach, expect, test } from "vitest";
import { chat, ollamaAddress, type ChatOptions } from "../../src/core/ollama.js";
import { calls, ollamaStandIn, says, type StandIn, type StandInAnswer } from "./ollama-stand-in.js";

const opened: StandIn[] = [];
afterEach(async () => {
  for (const each of opened.splice(0)) await each.close();
});

async function standIn(...answers: StandInAnswer[]): Promise<StandIn> {
  const made = await ollamaStandIn(...answers);
  opened.push(made);
  return made;
}

const request = { model: "some:1b", messages: [{ role: "user", content: "hi" }], tools: [{ name: "f", description: "does f", parameters: { type: "object" } }] } as const;

async function ask(answer: StandInAnswer, options: ChatOptions = {}) {
  const { address } = await standIn(answer);
  return chat(request, { address, ...options });
}

test("what is sent", async () => {
  const { address, requests } = await standIn(says("ok"));
  await chat(request, { address });
  expect(requests).toEqual([{ model: "some:1b", messages: [{ role: "user", content: "hi" }], stream: true, tools: [{ type: "function", function: { name: "f", description: "does f", parameters: { type: "object" } } }] }]);
});

test.each([1, 2, 3, 7, 64, 100_000])("an answer in pieces of %i bytes", async (pieceBytes) => {
  const text = ["Grüße, ", "\u{1f9ea}", "\n", "日本"];
  const call = { message: { role: "assistant", content: "", tool_calls: [{ function: { name: "f", arguments: { a: "ü\n" } } }] }, done: false };
  const pieces: string[] = [];
  const answer = await ask({ chunks: [...text.map((content) => ({ message: { content }, done: false })), "\n", call], pieceBytes }, { onText: (piece) => pieces.push(piece) });
  expect(pieces).toEqual(text);
  expect(answer).toEqual({ content: "Grüße, \u{1f9ea}\n日本", toolCalls: [{ function: { name: "f", arguments: { a: "ü\n" } } }] });
});

test("a last line without an end, and what follows the last chunk", async () => {
  expect(await ask({ chunks: ['{"message":{"content":"a"},"done":true}'], end: "nothing" })).toEqual({ content: "a", toolCalls: [] });
  expect(await ask({ chunks: ['{"message":{"content":"a"},"done":true}\n', '{"message":{"content":"b"}}\n'] })).toEqual({ content: "a", toolCalls: [] });
  expect(await ask({ chunks: ['{"message":{"content":"a"},"error":null,"done":true}\n'] })).toEqual({ content: "a", toolCalls: [] });
  expect(await ask({ chunks: ['{"message":null,"done":false}\n{"message":{"content":5,"tool_calls":[null,{}]},"done":true}\n'] })).toEqual({ content: "", toolCalls: [{ function: { name: "", arguments: {} } }, { function: { name: "", arguments: {} } }] });
});

test.each<[string, StandInAnswer, object]>([
  ["no such model", { status: 404, error: 'model "some:1b" not found, try pulling it first' }, { code: "NOT_FOUND", hint: "ollama pull some:1b" }],
  ["a model without tools", { status: 400, error: "registry.ollama.ai/library/some:1b does not support tools" }, { code: "UNSUPPORTED", message: "The model some:1b can't call tools: registry.ollama.ai/library/some:1b does not support tools" }],
  ["another error", { status: 500, error: "out of \u001b[31mmemory" }, { code: "PROTOCOL", message: "Ollama answered with status 500: out of \\x1b[31mmemory" }],
  ["an error that is no JSON", { status: 502, error: 5 }, { code: "PROTOCOL", message: "Ollama answered with status 502: 5" }],
  ["an error in the stream", { chunks: [{ message: { content: "a" } }, { error: "an error was encountered while running the model" }] }, { code: "PROTOCOL", message: "Ollama broke off: an error was encountered while running the model" }],
  ["an end before the end", { chunks: [{ message: { content: "a" }, done: false }], end: "nothing" }, { code: "PROTOCOL", message: "Ollama's answer broke off before its end." }],
  ["a connection that breaks", { chunks: [{ message: { content: "a" }, done: false }], end: "break" }, { code: "PROTOCOL" }],
  ["nothing at all", { chunks: [], end: "nothing" }, { code: "PROTOCOL", message: "Ollama's answer broke off before its end." }],
  ["something else", { chunks: ["<html>\n"] }, { code: "PROTOCOL", message: 'What answers is not Ollama: it said "<html>".' }],
  ["half a line", { chunks: ['{"message":{"cont'], end: "nothing" }, { code: "PROTOCOL" }],
  ["a number", { chunks: ["5\n"] }, { code: "PROTOCOL" }],
  ["too long an answer", { chunks: Array.from({ length: 70 }, () => ({ message: { content: "x".repeat(1000) } })) }, { code: "PROTOCOL", message: "The model's answer is longer than 65536 characters." }],
  ["too many calls", calls(...Array.from({ length: 17 }, () => ({ arguments: {} }))), { code: "PROTOCOL", message: "The model called tools more than 16 times in one answer." }],
  ["too long a line", { chunks: ["x".repeat(2_000_000)] }, { code: "PROTOCOL", message: "A line of Ollama's answer has more than 1048576 bytes." }],
  ["too many bytes", { chunks: Array.from({ length: 50 }, () => `{"thinking":"${"x".repeat(100_000)}"}\n`), pieceBytes: 100_000 }, { code: "PROTOCOL", message: "Ollama's answer has more than 4194304 bytes." }],
  ["a redirection", { status: 307, error: "" }, { code: "PROTOCOL" }],
])("%s", async (_what, answer, expected) => {
  await expect(ask(answer)).rejects.toMatchObject(expected);
});

test("silence before and within an answer; slow is not silent", async () => {
  await expect(ask({ chunks: [], end: "hang" }, { silenceMs: 100 })).rejects.toMatchObject({ code: "TIMEOUT", message: expect.stringMatching(/^Ollama at http:\/\/127\.0\.0\.1:\d+ said nothing for 0\.1 s\.$/) as string });
  await expect(ask({ chunks: [{ message: { content: "a" } }], end: "hang" }, { silenceMs: 100 })).rejects.toMatchObject({ code: "TIMEOUT" });
  const slow = () => ask({ ...says("a", "b") as object, chunks: (says("a", "b", "c", "d") as { chunks: object[] }).chunks, pieceBytes: 30, delayMs: 100 }, { silenceMs: 1500 });
  // Silent it is where it stands still, as it is in this process, too.
  const patiently = async (tries: number): ReturnType<typeof slow> => slow().catch((error: unknown) => (tries > 0 ? patiently(tries - 1) : Promise.reject(error as Error)));
  expect(await patiently(5)).toMatchObject({ content: "abcd" });
});

test("nobody there", async () => {
  const port = 2; // one that was free a moment ago may be somebody's by now
  await expect(chat(request, { address: new URL(`http://127.0.0.1:${port}/`) })).rejects.toMatchObject({ code: "HOST_MISSING", message: `No Ollama answers at http://127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`, hint: expect.stringContaining("ollama serve") as string });
});

test("a cancelled question", async () => {
  const controller = new AbortController();
  const asked = ask({ chunks: [{ message: { content: "a" } }], end: "hang" }, { signal: controller.signal, onText: () => controller.abort() });
  await expect(asked).rejects.toMatchObject({ code: "CANCELLED" });
});

test.each([
  [undefined, "http://127.0.0.1:11434/"],
  ["", "http://127.0.0.1:11434/"],
  ["gpu", "http://gpu:11434/"],
  ["gpu:1234", "http://gpu:1234/"],
  [":1234", "http://127.0.0.1:1234/"],
  ["0.0.0.0", "http://127.0.0.1:11434/"],
  ["0.0.0.0:80", "http://127.0.0.1/"],
  ["http://gpu", "http://gpu/"],
  ["https://gpu", "https://gpu/"],
  ["https://gpu:8443/ollama", "https://gpu:8443/ollama/"],
  ["[::1]", "http://[::1]:11434/"],
  ["[::]:5000", "http://[::1]:5000/"],
])("OLLAMA_HOST=%s is %s", (host, expected) => {
  expect(ollamaAddress(host ?? "").href).toBe(expected);
});

test.each(["ftp://gpu", "http://", "a b", "gpu:99999", "//"])("OLLAMA_HOST=%s is refused", (host) => {
  expect(() => ollamaAddress(host)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }) as Error);
});
