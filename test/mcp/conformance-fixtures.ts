// What the official conformance suite expects to find in a server, added to the one that is shipped: so its transports, its sessions and its way of serving
// are held to all of the protocol, also to what pyro's own tools have no use for.
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { CLIENT_CAPABILITIES_META_KEY, fromJsonSchema, inputRequired, inputResponse, ProtocolError, ProtocolErrorCode, ResourceTemplate, type CallToolResult, type InputRequests, type McpServer, type ServerContext } from "@modelcontextprotocol/server";
import * as z from "zod";
import { createServer } from "../../src/mcp/server.js";

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const wav = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
const text = (value: string): CallToolResult => ({ content: [{ type: "text", text: value }] });
const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
const none = z.object({});
const ask: Parameters<typeof inputRequired.elicit>[0] = { message: "What is your name?", requestedSchema: { type: "object", properties: { name: { type: "string" } }, required: ["name"] } };
const secret = randomBytes(32);

export function createFixtureServer(): McpServer {
  const server = createServer();
  server.server.registerCapabilities({ logging: {}, resources: { subscribe: true } });
  for (const method of ["resources/subscribe", "resources/unsubscribe"] as const) server.server.setRequestHandler(method, () => ({}));
  addContent(server);
  addQuestions(server);
  addRounds(server);
  addResourcesAndPrompts(server);
  return server;
}

function addContent(server: McpServer): void {
  const tool = (name: string, call: (ctx: ServerContext) => CallToolResult | Promise<CallToolResult>) => server.registerTool(name, { description: "a fixture", inputSchema: none }, (_args, ctx) => call(ctx));
  tool("test_simple_text", () => text("This is a simple text response for testing."));
  tool("test_image_content", () => ({ content: [{ type: "image", data: png, mimeType: "image/png" }] }));
  tool("test_audio_content", () => ({ content: [{ type: "audio", data: wav, mimeType: "audio/wav" }] }));
  tool("test_embedded_resource", () => ({ content: [{ type: "resource", resource: { uri: "test://embedded-resource", mimeType: "text/plain", text: "This is an embedded resource content." } }] }));
  tool("test_multiple_content_types", () => ({
    content: [
      { type: "text", text: "Multiple content types test:" },
      { type: "image", data: png, mimeType: "image/png" },
      { type: "resource", resource: { uri: "test://mixed-content-resource", mimeType: "application/json", text: '{"test":"data","value":123}' } },
    ],
  }));
  tool("test_error_handling", () => ({ ...text("This tool intentionally returns an error for testing"), isError: true }));
  const logs = async (ctx: ServerContext) => {
    for (const line of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await ctx.mcpReq.log("info", line);
      await pause();
    }
    return text("logged");
  };
  tool("test_tool_with_logging", logs);
  tool("test_logging_tool", logs);
  tool("test_tool_with_progress", async ({ mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      await pause();
    }
    return text("done");
  });
}

function addQuestions(server: McpServer): void {
  server.registerTool("test_sampling", { description: "a fixture", inputSchema: z.object({ prompt: z.string() }) }, async ({ prompt }, ctx) => {
    const { content } = await ctx.mcpReq.requestSampling({ messages: [{ role: "user", content: { type: "text", text: prompt } }], maxTokens: 100 });
    return text(`LLM response: ${JSON.stringify(content)}`);
  });
  const elicit = async (ctx: ServerContext, message: string, requestedSchema: Parameters<ServerContext["mcpReq"]["elicitInput"]>[0] extends infer Form ? (Form extends { requestedSchema: infer Schema } ? Schema : never) : never) => {
    const { action, content } = await ctx.mcpReq.elicitInput({ message, requestedSchema });
    return text(`Elicitation completed: action=${action}, content=${JSON.stringify(content)}`);
  };
  server.registerTool("test_elicitation", { description: "a fixture", inputSchema: z.object({ message: z.string() }) }, ({ message }, ctx) =>
    elicit(ctx, message, { type: "object", properties: { username: { type: "string", description: "User's response" }, email: { type: "string", description: "User's email address" } }, required: ["username", "email"] }),
  );
  server.registerTool("test_elicitation_sep1034_defaults", { description: "a fixture", inputSchema: none }, (_args, ctx) =>
    elicit(ctx, "defaults", {
      type: "object",
      properties: {
        name: { type: "string", default: "John Doe" },
        age: { type: "integer", default: 30 },
        score: { type: "number", default: 95.5 },
        status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
        verified: { type: "boolean", default: true },
      },
    }),
  );
  const titled = (title: string) => [1, 2, 3].map((n) => ({ const: `value${n}`, title: `${["First", "Second", "Third"][n - 1]} ${title}` }));
  const options = ["option1", "option2", "option3"];
  server.registerTool("test_elicitation_sep1330_enums", { description: "a fixture", inputSchema: none }, (_args, ctx) =>
    elicit(ctx, "enums", {
      type: "object",
      properties: {
        untitledSingle: { type: "string", enum: options },
        titledSingle: { type: "string", oneOf: titled("Option") },
        legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
        untitledMulti: { type: "array", items: { type: "string", enum: options } },
        titledMulti: { type: "array", items: { anyOf: titled("Choice") } },
      },
    }),
  );
}

/** Questions to the client inside of a result, from 2026-07-28 on. */
function addRounds(server: McpServer): void {
  const elicitName = inputRequired.elicit(ask);
  const sample = (question: string, maxTokens: number) => inputRequired.createMessage({ messages: [{ role: "user", content: { type: "text", text: question } }], maxTokens });
  /** Asks until all is answered. */
  const rounds = (name: string, requests: InputRequests, done: (answers: Record<string, unknown>) => string, state?: string) =>
    server.registerTool(name, { description: "a fixture", inputSchema: none }, (_args, { mcpReq }) => {
      const { inputResponses: answers = {} } = mcpReq;
      if (state !== undefined && mcpReq.requestState() !== undefined) checkState(mcpReq.requestState<string>());
      if (Object.keys(requests).every((key) => inputResponse(answers, key).kind !== "missing") && (state === undefined || mcpReq.requestState() !== undefined)) return text(done(answers));
      return inputRequired({ inputRequests: requests, ...(state !== undefined && { requestState: sign(state) }) });
    });
  const confirm = inputRequired.elicit({ message: "Please confirm", requestedSchema: { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"] } });
  rounds("test_input_required_result_elicitation", { user_name: elicitName }, (answers) => `Hello, ${(answers["user_name"] as { content?: { name?: string } }).content?.name}!`);
  rounds("test_streaming_elicitation", { user_name: elicitName }, () => "done");
  rounds("test_input_required_result_sampling", { capital_question: sample("What is the capital of France?", 100) }, (answers) => JSON.stringify(answers));
  rounds("test_missing_capability", { question: sample("?", 10) }, () => "done");
  rounds("test_input_required_result_list_roots", { client_roots: inputRequired.listRoots() }, (answers) => JSON.stringify(answers));
  rounds("test_input_required_result_request_state", { confirm }, () => "state-ok", "confirming");
  rounds("test_input_required_result_tampered_state", { confirm }, () => "state-ok", "confirming");
  rounds("test_input_required_result_multiple_inputs", { user_name: elicitName, greeting: sample("Generate a greeting", 50), client_roots: inputRequired.listRoots() }, () => "done", "all three");
  server.registerTool("test_input_required_result_capabilities", { description: "a fixture", inputSchema: none }, (_args, { mcpReq }) => {
    const declared = (mcpReq.envelope as Record<string, Record<string, unknown>> | undefined)?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
    return inputRequired({ inputRequests: { ...(declared["sampling"] !== undefined && { greeting: sample("Generate a greeting", 50) }), ...(declared["elicitation"] !== undefined && { user_name: elicitName }) } });
  });
  server.registerTool("test_input_required_result_multi_round", { description: "a fixture", inputSchema: none }, (_args, { mcpReq }) => {
    const state = mcpReq.requestState() === undefined ? undefined : checkState(mcpReq.requestState<string>());
    if (state === "round 2" && inputResponse(mcpReq.inputResponses, "step2").kind !== "missing") return text("done");
    if (state === "round 1" && inputResponse(mcpReq.inputResponses, "step1").kind !== "missing") {
      return inputRequired({ inputRequests: { step2: inputRequired.elicit({ message: "Step 2: What is your favorite color?", requestedSchema: { type: "object", properties: { color: { type: "string" } }, required: ["color"] } }) }, requestState: sign("round 2") });
    }
    return inputRequired({ inputRequests: { step1: inputRequired.elicit({ ...ask, message: "Step 1: What is your name?" }) }, requestState: sign("round 1") });
  });
  server.registerPrompt("test_input_required_result_prompt", { description: "a fixture" }, ({ mcpReq }) =>
    inputResponse(mcpReq.inputResponses, "user_context").kind === "missing"
      ? inputRequired({ inputRequests: { user_context: inputRequired.elicit({ message: "What context should the prompt use?", requestedSchema: { type: "object", properties: { context: { type: "string" } }, required: ["context"] } }) } })
      : { messages: [{ role: "user", content: { type: "text", text: "with context" } }] },
  );
}

function addResourcesAndPrompts(server: McpServer): void {
  server.registerResource("text", "test://static-text", { mimeType: "text/plain", description: "text" }, ({ href: uri }) => ({ contents: [{ uri, mimeType: "text/plain", text: "This is the content of the static text resource." }] }));
  server.registerResource("binary", "test://static-binary", { mimeType: "image/png", description: "binary" }, ({ href: uri }) => ({ contents: [{ uri, mimeType: "image/png", blob: png }] }));
  server.registerResource("data", new ResourceTemplate("test://template/{id}/data", { list: undefined }), { mimeType: "application/json" }, ({ href: uri }, { id }) => ({
    contents: [{ uri, mimeType: "application/json", text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${String(id)}` }) }],
  }));
  const says = (value: string) => ({ role: "user", content: { type: "text", text: value } }) as const;
  server.registerPrompt("test_simple_prompt", { description: "a fixture" }, () => ({ messages: [says("This is a simple prompt for testing.")] }));
  server.registerPrompt("test_prompt_with_arguments", { description: "a fixture", argsSchema: z.object({ arg1: z.string(), arg2: z.string() }) }, ({ arg1, arg2 }) => ({ messages: [says(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }));
  server.registerPrompt("test_prompt_with_embedded_resource", { description: "a fixture", argsSchema: z.object({ resourceUri: z.string() }) }, ({ resourceUri }) => ({
    messages: [{ role: "user", content: { type: "resource", resource: { uri: resourceUri, mimeType: "text/plain", text: "Embedded resource content for testing." } } }, says("Please process the embedded resource above.")],
  }));
  server.registerPrompt("test_prompt_with_image", { description: "a fixture" }, () => ({ messages: [{ role: "user", content: { type: "image", data: png, mimeType: "image/png" } }, says("Please analyze the image above.")] }));
  server.registerTool("json_schema_2020_12_tool", { description: "a fixture", inputSchema: fromJsonSchema({ type: "object" }) }, () => text("ok"));
}

function sign(state: string): string {
  return `${state}.${createHmac("sha256", secret).update(state).digest("hex")}`;
}

function checkState(signed: string | undefined = ""): string {
  const state = signed.slice(0, signed.lastIndexOf("."));
  const [given, wanted] = [Buffer.from(signed), Buffer.from(sign(state))];
  // Out of a tool's handler it would be a result; this is the library's way to a protocol error.
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) throw new ProtocolError(ProtocolErrorCode.InvalidParams, "Invalid requestState");
  return state;
}
