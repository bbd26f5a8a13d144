/** Failures as clients get them. */
import type { CallToolResult } from "@modelcontextprotocol/server";
import * as z from "zod";
import { errorCodes, toPyroError, type ErrorCode } from "../base/error.js";

/** The other thing that every tool can answer; part of its output schema, as clients hold failures to it as well. */
export const failureShape = z.looseObject({
  error: z.looseObject({
    code: z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]).describe("For programs; the set is closed."),
    message: z.string().describe("What happened, to what."),
    hint: z.string().optional().describe("The next step."),
  }),
});

export function failed(error: unknown): CallToolResult {
  const { code, message, hint: given } = toPyroError(error);
  const hint = given === undefined ? undefined : hintForTools(given);
  return {
    content: [{ type: "text", text: `${code}: ${message}${hint === undefined ? "" : `\nNext step: ${hint}`}` }],
    structuredContent: { error: { code, message, ...(hint !== undefined && { hint }) } },
    isError: true,
  };
}

/** Hints are written for whoever types commands; a client has tools instead. What only a person at the host can do stays as it is. */
export function hintForTools(hint: string): string {
  return hint
    .replace(/`?pyro vm list`?/g, "the resource pyro://vms")
    .replace(/`?pyro env list`?/g, "vm_list_environments")
    .replace(/`?pyro vm logs (vm-[0-9a-z]{8})`?/g, "the resource pyro://vms/$1/console")
    .replace(/`?pyro vm exec (?:--rm )?(vm-[0-9a-z]{8})(?: -- COMMAND)?`?/g, 'vm_exec (the only command) or vm_call (one of many) with vm_id "$1"')
    .replace(/`?pyro vm (start|stop|delete|status) (vm-[0-9a-z]{8})`?/g, 'vm_$1 with vm_id "$2"')
    .replace(/`?pyro vm exec`? \(connectVm in the SDK\)/g, "vm_call")
    .replace(/--[a-z-]+ \(([a-z_]+)\)/g, "$1")
    .replace("pyro run debian:12 -- git --version", '"git --version", or ["git", "--version"]');
}
