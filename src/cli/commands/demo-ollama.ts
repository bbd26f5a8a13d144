import type { Command } from "commander";
import { harmless, harmlessLine } from "../../base/harmless.js";
import { runAgent } from "../../core/index.js";
import { phaseLine } from "../phases.js";
import type { CommandContext } from "../program.js";

/** Small, and it calls tools. */
const defaultModel = "llama3.2:3b";
const defaultPrompt = "Which Linux distribution, which kernel release and which version of Git does a debian:12 VM have? Run commands in it to find out, then answer in one sentence.";

export function define(demo: Command, context: CommandContext): void {
  demo
    .command("ollama")
    .summary("let a local model work in VMs")
    .description("Gives a model served by Ollama the tool vm_run and a question, and shows what it does until it has an answer, at most 12 rounds.")
    .option("--model <name>", `a model that can call tools (default ${defaultModel})`)
    .option("--prompt <text>", "what to ask it")
    .addHelpText(
      "after",
      `
The model's words go to standard output, log lines to standard error; the last one is
[demo] result=answered rounds=2 tool_calls=1 model=${defaultModel} duration_ms=…. Exit status 0 only with an answer.
Ollama is looked for at OLLAMA_HOST, else at 127.0.0.1:11434.

Examples:
  ollama pull ${defaultModel} && pyro demo ollama
  pyro demo ollama --model qwen3:4b --prompt 'How many files are below /usr in debian:12-base?'`,
    )
    .action(async (flags: { model?: string; prompt?: string }) => {
      context.exitStatus = await ask(flags.model ?? defaultModel, flags.prompt ?? defaultPrompt, context);
    });
}

async function ask(model: string, prompt: string, { output, interrupts }: CommandContext): Promise<number> {
  const begin = performance.now();
  const progress = { rounds: 0, toolCalls: 0 };
  const summary = (result: string) => output.line(`[demo] result=${result} rounds=${progress.rounds} tool_calls=${progress.toolCalls} model=${harmlessLine(model, 100)} duration_ms=${Math.round(performance.now() - begin)}`);
  let environment = "";
  let atLineStart = true;
  const endLine = () => {
    if (!atLineStart) output.result("\n");
    atLineStart = true;
  };
  output.line(`[demo] prompt=${JSON.stringify(prompt)}`);
  try {
    const { result } = await runAgent({ model, prompt }, {
      signal: AbortSignal.any([interrupts.signal, output.lost]),
      onRound: (round) => output.line(`[demo] round=${round} model=${model}`),
      onText: (piece) => {
        output.result(harmless(piece));
        atLineStart = piece.endsWith("\n");
      },
      onCall: (round, { name, arguments: given }) => {
        endLine();
        environment = harmlessLine(String((given as { environment?: unknown } | null)?.environment), 60);
        output.line(`[demo] round=${round} tool=${harmlessLine(name, 60)} arguments=${harmlessLine(JSON.stringify(given), 300)}`);
      },
      onPhase: (phase) => {
        if (phase.phase !== "start" && phase.phase !== "exec") phaseLine(output, "demo", environment, phase);
      },
      onResult: (round, { ok, text, exitCode }) => output.line(`[demo] round=${round} ${ok ? `exit_code=${exitCode}` : "error"} result=${harmlessLine(text, 300)}`),
    }, progress);
    endLine();
    summary(result);
    return result === "answered" ? 0 : 1;
  } catch (error) {
    endLine();
    summary("failed");
    throw error;
  }
}
