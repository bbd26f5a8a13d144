/** Which method is which of core's verbs, with which arguments. docs/pipe.md shows the same table to people. */
import {
  auditVm,
  createVm,
  deleteVm,
  execVm,
  inspectEnvironment,
  listEnvironments,
  listVms,
  networkInfoVm,
  pruneEnvironments,
  pullEnvironment,
  reapExpired,
  runInVm,
  setNetworkVm,
  startVm,
  statusVm,
  stopVm,
  vmLogs,
  type CreateRequest,
  type OneCommand,
  type Phase,
  type PolicyRequest,
  type RunRequest,
} from "../../core/index.js";
import { parseArguments, type ArgumentNames } from "./arguments.js";

/** What a method has besides its arguments. */
export interface Call {
  /** Aborts when the client cancels the request or goes away. */
  readonly signal: AbortSignal;
  /** Tells the client what happens meanwhile. */
  onPhase(phase: Phase): void;
}

export interface Method {
  readonly argumentNames: { readonly required: readonly string[]; readonly optional: readonly string[] };
  /** Throws INVALID_ARGUMENT for arguments that are not this method's. */
  parse(given: unknown): unknown;
  /** Takes what `parse` gave. */
  run(request: unknown, call: Call): Promise<unknown>;
}

interface OfVm {
  vmId: string;
}
interface OfEnvironment {
  environment: string;
}
const nothing = { required: [], optional: [] } as const;
const ofVm = { required: ["vm_id"], optional: [] } as const;
const sized = ["vcpu_count", "mem_mib", "disk_mib", "ttl_seconds", "network", "allow_host_compat"] as const;
const policy = ["allow_hosts", "deny_hosts", "allow_nets"] as const;
const networked = [...policy, "publish", "secrets"] as const;
const surroundings = ["timeout_seconds", "capture_bytes", "env", "cwd", "user"] as const;

export const methods: ReadonlyMap<string, Method> = new Map([
  method<object>("list_environments", nothing, (_, { signal }) => listEnvironments({ signal })),
  method<OfEnvironment & { force?: boolean }>("pull_environment", { required: ["environment"], optional: ["force"] }, ({ environment, ...options }, { signal, onPhase }) =>
    pullEnvironment(environment, { ...options, signal, onPhase, onProgress: (progress) => onPhase({ phase: "pull", progress }) })),
  method<OfEnvironment>("inspect_environment", { required: ["environment"], optional: [] }, ({ environment }, { signal }) => inspectEnvironment(environment, { signal })),
  method<object>("prune_environments", nothing, (_, { signal }) => pruneEnvironments({ signal })),
  method<CreateRequest>("create_vm", { required: ["environment"], optional: [...sized, ...networked] }, (request, { signal }) => createVm(request, { signal })),
  method<OfVm>("start_vm", ofVm, ({ vmId }, call) => startVm(vmId, call)),
  method<OfVm & OneCommand>("exec_vm", { required: ["vm_id", "command"], optional: surroundings }, ({ vmId, ...request }, { signal }) => execVm(vmId, request, { signal })),
  method<OfVm>("stop_vm", ofVm, ({ vmId }, { signal }) => stopVm(vmId, { signal })),
  method<OfVm>("delete_vm", ofVm, ({ vmId }, { signal }) => deleteVm(vmId, { signal })),
  method<OfVm>("status_vm", ofVm, ({ vmId }) => statusVm(vmId)),
  method<object>("list_vms", nothing, () => listVms()),
  method<OfVm>("logs_vm", ofVm, ({ vmId }) => vmLogs(vmId)),
  method<OfVm>("network_info_vm", ofVm, ({ vmId }) => networkInfoVm(vmId)),
  method<OfVm & PolicyRequest>("set_network_vm", { required: ["vm_id"], optional: ["network", ...policy] }, ({ vmId, ...request }, { signal }) => setNetworkVm(vmId, request, { signal })),
  method<OfVm & { last?: number }>("audit_vm", { required: ["vm_id"], optional: ["last"] }, ({ vmId, ...options }, { signal }) => auditVm(vmId, { ...options, signal })),
  method<object>("reap_expired", nothing, (_, { signal }) => reapExpired({ signal })),
  method<RunRequest & { captureBytes?: number }>("run_in_vm", { required: ["environment", "command"], optional: [...sized, ...networked, "audit_file", ...surroundings] }, ({ captureBytes, ...request }, call) =>
    runInVm(request, { ...call, ...(captureBytes !== undefined && { captureBytes }) })),
]);

function method<Request>(name: string, names: ArgumentNames<Request>, run: (request: Request, call: Call) => Promise<unknown>): [string, Method] {
  return [name, { argumentNames: names, parse: (given) => parseArguments(name, names, given), run: (request, call) => run(request as Request, call) }];
}
