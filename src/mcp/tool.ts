/** What a tool is, and how the library is told of it. */
import type { CallToolResult, McpServer, ResourceLink, ServerContext, StandardSchemaWithJSON, ToolAnnotations } from "@modelcontextprotocol/server";
import * as z from "zod";
import type { Json } from "../base/json.js";
import { readArguments } from "./arguments.js";
import { startProgress, type Progress } from "./progress.js";
import { failed, failureShape } from "./results.js";
import type { Shared } from "./shared.js";

export interface Tool<Input extends z.ZodObject = z.ZodObject> {
  name: string;
  title: string;
  /** When to use it and when not. */
  description: string;
  input: Input;
  /** Of a result; every tool can also answer with a failure. */
  output: z.ZodObject;
  /** All four, and true in the worst case that the arguments allow. */
  annotations: Required<Omit<ToolAnnotations, "title">>;
  /** It works with a VM and takes one of `shared.slots` for that, when it is about to; all others are brief. */
  takesSlot?: true;
  /** Throws PyroError. */
  call(args: z.output<Input>, call: Call): Promise<Outcome>;
}

/** What a call is made with besides its arguments. */
export interface Call {
  /** Aborts when the client cancels, or is gone. */
  signal: AbortSignal;
  progress: Progress;
  shared: Shared;
}

export interface Outcome {
  structured: { [key: string]: Json };
  /** For people, and for models whose client shows them nothing else. */
  text: string;
  links?: ResourceLink[];
}

/** Keeps the types of a tool's arguments. */
export function defineTool<Input extends z.ZodObject>(tool: Tool<Input>): Tool {
  return tool as unknown as Tool;
}

export function registerTool(server: McpServer, tool: Tool, shared: Shared): void {
  const { name, title, description, annotations } = tool;
  const { input, output } = schemasOf(tool);
  server.registerTool(name, { title, description, inputSchema: input, outputSchema: output, annotations: { title, ...annotations } }, (raw, ctx) => answer(tool, raw, ctx, shared));
}

/** Every failure is a result that says so: a model can read it and do something about it, which it can't with an error of the protocol. */
async function answer(tool: Tool, raw: unknown, ctx: ServerContext, shared: Shared): Promise<CallToolResult> {
  const progress = startProgress(ctx);
  try {
    const args = readArguments(tool.name, tool.input, raw);
    const { signal } = ctx.mcpReq;
    const call = () => tool.call(args, { signal, progress, shared });
    const { structured, text, links = [] } = await (tool.takesSlot ? call() : shared.briefSlots.use(signal, () => {}, call));
    return { content: [{ type: "text", text }, ...links], structuredContent: structured };
  } catch (error) {
    return failed(error);
  } finally {
    progress.end();
  }
}

const schemas = new Map<Tool, { input: StandardSchemaWithJSON; output: StandardSchemaWithJSON }>();

/** Made once: over HTTP there is a server for each request. */
function schemasOf(tool: Tool): { input: StandardSchemaWithJSON; output: StandardSchemaWithJSON } {
  let made = schemas.get(tool);
  if (made === undefined) {
    const result = z.union([tool.output, failureShape]);
    made = { input: standardSchema(jsonSchema(tool.input, "input"), () => undefined), output: standardSchema({ type: "object", ...jsonSchema(result, "output") }, (value) => result.safeParse(value).error?.issues) };
    schemas.set(tool, made);
  }
  return made;
}

/**
 * A schema with a say of its own in what is wrong: arguments are checked by `readArguments`, whose complaints name what is allowed, and not by the
 * library, which would answer with a text alone.
 */
function standardSchema(json: Record<string, unknown>, complaints: (value: unknown) => readonly { message: string }[] | undefined): StandardSchemaWithJSON {
  return {
    "~standard": {
      version: 1,
      vendor: "pyro",
      validate: (value) => {
        const issues = complaints(value);
        return issues === undefined ? { value } : { issues };
      },
      jsonSchema: { input: () => json, output: () => json },
    },
  };
}

function jsonSchema(schema: z.ZodType, io: "input" | "output"): Record<string, unknown> {
  const { $schema: _dialect, ...json } = z.toJSONSchema(schema, {
    io,
    target: "draft-2020-12",
    override: ({ jsonSchema: each }) => {
      // "Anything else as well" is what leaving it out says, and what some clients can't read.
      if (typeof each.additionalProperties === "object" && Object.keys(each.additionalProperties).length === 0) delete each.additionalProperties;
    },
  });
  return json;
}
