/** What can be read without a tool: environments, VMs and their consoles, and output that was too long for a result. */
import { ProtocolError, ProtocolErrorCode, ResourceNotFoundError, ResourceTemplate, type McpServer, type ReadResourceResult, type Variables } from "@modelcontextprotocol/server";
import { toPyroError } from "../base/error.js";
import { printJson } from "../base/json.js";
import { listEnvironments, listVms, statusVm, vmLogs } from "../core/index.js";
import type { Shared } from "./shared.js";

const json = "application/json";
const plain = "text/plain";

/** Clients show these; more VMs than this are not listed, and can be read all the same. */
const maxListed = 200;

export function registerResources(server: McpServer, shared: Shared): void {
  server.registerResource("environments", "pyro://environments", { title: "Environments", description: "What VMs can be made of, and what of it is installed.", mimeType: json }, (uri) =>
    readable(uri, json, async () => printJson({ environments: await listEnvironments() })),
  );
  server.registerResource("vms", "pyro://vms", { title: "VMs", description: "All VMs that have a vm_id, of all processes of this user, oldest first.", mimeType: json }, (uri) => readable(uri, json, async () => printJson({ vms: await listVms() })));

  const complete = { vm_id: async (begin: string) => (await listVms()).map(({ vmId }) => vmId).filter((vmId) => vmId.startsWith(begin)).slice(0, 100) };
  const vms = new ResourceTemplate("pyro://vms/{vm_id}", {
    list: async () => ({ resources: (await listVms()).slice(-maxListed).map(({ vmId, environment, state }) => ({ uri: `pyro://vms/${vmId}`, name: vmId, title: `${vmId} (${environment}, ${state})`, mimeType: json })) }),
    complete,
  });
  server.registerResource("vm", vms, { title: "A VM", description: "What is true of a VM now.", mimeType: json }, (uri, variables) => readable(uri, json, async () => printJson(await statusVm(value(variables, "vm_id")))));
  const consoles = new ResourceTemplate("pyro://vms/{vm_id}/console", { list: undefined, complete });
  server.registerResource("console", consoles, { title: "A VM's console", description: "The end of what the guest's kernel and its first process said, at most 64 KiB.", mimeType: plain }, (uri, variables) => readable(uri, plain, () => vmLogs(value(variables, "vm_id"))));

  const results = new ResourceTemplate("pyro://results/{result_id}/{stream}", { list: undefined, complete: { stream: () => ["stdout", "stderr"] } });
  server.registerResource(
    "output",
    results,
    { title: "Long output", description: "Up to 1 MiB of a command's output that was too long for its result, for as long as it is among the last 32 of this server.", mimeType: plain },
    (uri, variables) => {
      const text = shared.results.get(value(variables, "result_id"), value(variables, "stream"));
      if (text === undefined) throw new ResourceNotFoundError(uri.href);
      return { contents: [{ uri: uri.href, mimeType: plain, text }] };
    },
  );
}

async function readable(uri: URL, mimeType: string, read: () => Promise<string>): Promise<ReadResourceResult> {
  try {
    return { contents: [{ uri: uri.href, mimeType, text: await read() }] };
  } catch (error) {
    const { code, message, hint } = toPyroError(error);
    if (code === "NOT_FOUND") throw new ResourceNotFoundError(uri.href, message);
    throw new ProtocolError(ProtocolErrorCode.InternalError, `${code}: ${message}`, { code, message, ...(hint !== undefined && { hint }) });
  }
}

function value(variables: Variables, name: string): string {
  const found = variables[name];
  return (Array.isArray(found) ? found[0] : found) ?? "";
}
