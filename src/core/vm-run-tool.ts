/**
 * `vm_run` as a tool for a model that is talked to directly: a part of what the MCP server's tool of that name takes. What reaches beyond the VM (`network`,
 * `allow_host_compat`) is not for a model to decide that nobody asked for it.
 */
import { PyroError, type ErrorCode } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { toJson } from "../base/json.js";
import { nearest } from "../base/nearest.js";
import { isImagePath } from "../environments/index.js";
import { checkLimit, limits, type LimitName } from "./limits.js";
import type { Tool } from "./ollama.js";
import { runInVm, type RunOptions, type RunRequest } from "./run.js";

const numbers = { vcpu_count: "vcpuCount", mem_mib: "memMib", timeout_seconds: "timeoutSeconds" } as const satisfies Record<string, LimitName>;

export const vmRunTool = {
  name: "vm_run",
  description: "Runs one command in a new virtual machine that is isolated from the host and thrown away afterwards. Nothing is kept between calls. A command that exits with another status than 0 is a result, not an error.",
  parameters: {
    type: "object",
    properties: {
      environment: { type: "string", description: "What the VM is made of: debian:12 (with Git), debian:12-base (minimal) or debian:12-build (with a C toolchain)." },
      command: { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }], description: "A string is a line for the guest's shell; an array of words is executed as it is." },
      vcpu_count: number("vcpuCount", "Virtual processors."),
      mem_mib: number("memMib", "Memory, MiB."),
      timeout_seconds: number("timeoutSeconds", "Time for the command, seconds."),
    },
    required: ["environment", "command"],
    additionalProperties: false,
  },
} as const satisfies Tool;

/** What a model reads is read by a model with little room. */
const captureBytes = 4096;

/** What the model can mend by other arguments, or has brought about by its command. */
const modelsFault: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["INVALID_ARGUMENT", "NOT_FOUND", "UNSUPPORTED", "TIMEOUT", "GUEST_LOST"]);

/** Runs what a model asked for. The text is for the model: the result, or what is wrong with its call. Throws what is not the model's to mend: HOST_MISSING, BOOT_FAILED, CANCELLED … */
export async function callVmRun(given: unknown, options: Pick<RunOptions, "signal" | "onPhase"> = {}): Promise<{ ok: boolean; text: string; exitCode?: number }> {
  try {
    const { vmId: _vmId, environment: _environment, ...result } = await runInVm(readVmRunArguments(given), { ...options, captureBytes });
    return { ok: true, text: JSON.stringify(toJson(result)), exitCode: result.exitCode };
  } catch (error) {
    if (options.signal?.aborted || !(error instanceof PyroError) || !modelsFault.has(error.code)) throw error;
    return { ok: false, text: JSON.stringify({ error: error.toJSON() }) };
  }
}

/** Throws INVALID_ARGUMENT that says which argument, what was given and what is allowed. */
export function readVmRunArguments(given: unknown): RunRequest {
  const args = typeof given === "string" ? parse(given) : given;
  if (typeof args !== "object" || args === null || Array.isArray(args)) throw wrong(`The arguments are ${show(given)}; they are an object.`);
  const known = Object.keys(vmRunTool.parameters.properties);
  for (const name of Object.keys(args)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw wrong(`There is no argument ${show(name)}.${near.length === 0 ? "" : ` Did you mean ${near.join(" or ")}?`}`);
  }
  const { environment, command, ...rest } = args as Record<string, unknown>;
  if (typeof environment !== "string" || isImagePath(environment)) throw wrong(`environment is ${show(environment)}; it is the name of an environment, as "debian:12".`);
  if (typeof command !== "string" && !(Array.isArray(command) && command.every((each) => typeof each === "string"))) throw wrong(`command is ${show(command)}; it is a line for the guest's shell or an array of words.`);
  const sizes = Object.entries(numbers).filter(([name]) => rest[name] !== undefined && rest[name] !== null).map(([name, limit]) => [limit, checkLimit(limit, rest[name] as number)] as const);
  return { environment, command, ...Object.fromEntries(sizes) };
}

function number(name: LimitName, description: string) {
  const { min, max, default: fallback } = limits[name];
  return { type: "integer", minimum: min, maximum: max, default: fallback, description };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function show(value: unknown): string {
  return value === undefined ? "missing" : harmlessLine(JSON.stringify(value), 100);
}

function wrong(message: string): PyroError {
  return new PyroError("INVALID_ARGUMENT", message, { hint: `${vmRunTool.name} takes ${Object.keys(vmRunTool.parameters.properties).join(", ")}.` });
}
