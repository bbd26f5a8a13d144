/** What may be on a line: JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one message each, no batches. */
import { PyroError } from "../../base/error.js";
import { toJson } from "../../base/json.js";
import { isObject, show } from "./arguments.js";

export type RequestId = string | number;

export interface Message {
  /** Not there in a notification. */
  id?: RequestId;
  method: string;
  /** An empty object where there were none. */
  params: unknown;
}

/** JSON-RPC's own numbers, and the one for all errors that are none of these. */
export const rpcCodes = { parse: -32700, request: -32600, method: -32601, params: -32602, internal: -32603, failed: -32000 } as const;

/** A line that is no request: what it is answered with. */
export class BadMessage extends PyroError {
  readonly rpcCode: number;
  readonly id: RequestId | null;
  constructor(kind: "parse" | "request", message: string, hint: string, id: RequestId | null = null) {
    super("PROTOCOL", message, { hint });
    this.rpcCode = rpcCodes[kind];
    this.id = id;
  }
}

const shape = 'A request is one line: {"jsonrpc":"2.0","id":1,"method":"list_environments","params":{}}';
const maxIdLength = 256;

/** Undefined for a blank line. Throws BadMessage. */
export function parseMessage(line: Buffer): Message | undefined {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(line);
    if (text.trim() === "") return undefined;
    value = JSON.parse(text);
  } catch (error) {
    throw new BadMessage("parse", error instanceof SyntaxError ? "The line is not JSON." : "The line is not UTF-8.", shape);
  }
  if (Array.isArray(value)) throw new BadMessage("request", "The line is an array; batches are not taken.", "Send each request as a line of its own; they run at the same time all the same.");
  if (!isObject(value)) throw new BadMessage("request", `The line is ${show(value)}; a request is an object.`, shape);
  const id = own(value, "id");
  if (id !== undefined && !isId(id)) throw new BadMessage("request", `id is ${show(id)}; it is a string of at most ${maxIdLength} characters or a whole number.`, shape);
  const version = own(value, "jsonrpc");
  if (version !== "2.0") throw new BadMessage("request", `jsonrpc is ${show(version)}; it is "2.0".`, shape, id);
  const method = own(value, "method");
  if (typeof method !== "string") throw new BadMessage("request", `method is ${show(method)}; it is a string.`, shape, id);
  return { ...(id !== undefined && { id }), method, params: Object.hasOwn(value, "params") ? value["params"] : {} };
}

/** The line that answers with what core gave; its keys are the contract's. */
export function resultLine(id: RequestId, result: unknown): string {
  return `${JSON.stringify({ jsonrpc: "2.0", id, result: toJson(result) })}\n`;
}

export function errorLine(id: RequestId | null, rpcCode: number, { code, message, hint }: PyroError): string {
  return `${JSON.stringify({ jsonrpc: "2.0", id, error: { code: rpcCode, message, data: { code, ...(hint !== undefined && { hint }) } } })}\n`;
}

export function notificationLine(method: string, params: Record<string, unknown>): string {
  return `${JSON.stringify({ jsonrpc: "2.0", method, params: toJson(params) })}\n`;
}

function own(of: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(of, name) ? of[name] : undefined;
}

function isId(id: unknown): id is RequestId {
  return typeof id === "string" ? id.length <= maxIdLength : Number.isSafeInteger(id);
}
