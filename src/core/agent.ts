/** A model with one tool: asked, its calls made in VMs and answered, until it has an answer of its own or has had enough rounds. */
import { chat, type ChatMessage, type ChatOptions, type ToolCall } from "./ollama.js";
import { callVmRun, vmRunTool } from "./vm-run-tool.js";
import type { Phase } from "./start.js";

export interface AgentRequest {
  model: string;
  prompt: string;
}

export interface AgentOptions extends ChatOptions {
  /** A round begins: the model is asked. */
  onRound?: (round: number) => void;
  /** The model calls a tool. */
  onCall?: (round: number, call: ToolCall["function"]) => void;
  /** What it gets for that. */
  onResult?: (round: number, result: { ok: boolean; text: string; exitCode?: number }) => void;
  onPhase?: (phase: Phase) => void;
  /** What calls it; for tests without VMs. */
  callTool?: typeof callVmRun;
}

export interface AgentResult {
  /** `silent`: neither an answer nor a call. */
  result: "answered" | "silent" | "out_of_rounds";
  answer: string;
  rounds: number;
  toolCalls: number;
}

const maxRounds = 12;

const instructions = `You can run commands in virtual machines with the tool ${vmRunTool.name}. Find out what you are asked by running commands; never guess what one would print. When you know it, answer in plain, short sentences.`;

/** Throws what `chat` throws, and what keeps VMs from running. `progress` is kept up to date, for whoever catches it. */
export async function runAgent({ model, prompt }: AgentRequest, options: AgentOptions = {}, progress: { rounds: number; toolCalls: number } = { rounds: 0, toolCalls: 0 }): Promise<AgentResult> {
  const { callTool = callVmRun, signal, onPhase } = options;
  const messages: ChatMessage[] = [{ role: "system", content: instructions }, { role: "user", content: prompt }];
  while (progress.rounds < maxRounds) {
    const round = ++progress.rounds;
    options.onRound?.(round);
    const { content, toolCalls } = await chat({ model, messages, tools: [vmRunTool] }, options);
    if (toolCalls.length === 0) return { result: content.trim() === "" ? "silent" : "answered", answer: content, ...progress };
    messages.push({ role: "assistant", content, tool_calls: toolCalls });
    for (const { function: call } of toolCalls) {
      progress.toolCalls++;
      options.onCall?.(round, call);
      const result = call.name === vmRunTool.name ? await callTool(call.arguments, { ...(signal && { signal }), ...(onPhase && { onPhase }) }) : unknownTool(call.name);
      options.onResult?.(round, result);
      messages.push({ role: "tool", tool_name: call.name, content: result.text });
    }
  }
  return { result: "out_of_rounds", answer: "", ...progress };
}

function unknownTool(name: string): { ok: boolean; text: string } {
  return { ok: false, text: JSON.stringify({ error: { code: "NOT_FOUND", message: `There is no tool ${JSON.stringify(name.slice(0, 100))}.`, hint: `There is ${vmRunTool.name}.` } }) };
}
