/** What faces may use. What `run` needs at once is imported; all else is loaded when it is called for the first time. */
import { lazily } from "./lazily.js";

export { runInVm, type RunRequest, type RunOptions } from "./run.js";
export { Capture } from "./capture.js";
export { limits } from "./limits.js";
export { anyVms } from "./vms/any.js";
export type { Command } from "./command.js";
export { timeoutOf, type CommandTerminal, type ExecOptions, type ExecResult, type Surroundings, type TerminalSize } from "./exec.js";
export type { Phase } from "./start.js";
export { parseHostPattern } from "./policy/host-pattern.js";
export type { NetworkRequest, PolicyRequest, PublishedPort } from "./network.js";
export type { Refusal } from "./refusals.js";

const doctor = () => import("./doctor.js");
export const diagnose = lazily(doctor, "diagnose");
export type { DoctorCheck, DoctorOptions, DoctorReport } from "./doctor.js";

const mcpClients = () => import("./mcp-clients/index.js");
export const planInstall = lazily(mcpClients, "planInstall");
export const planUninstall = lazily(mcpClients, "planUninstall");
export const applyChange = lazily(mcpClients, "applyChange");
export const configPiece = lazily(mcpClients, "configPiece");
export const installedEntries = lazily(mcpClients, "installedEntries");
export type { ConfigChange, InstalledEntry, Target } from "./mcp-clients/index.js";
// What the command line is made of; small.
export { clientNames, clients, scopes } from "./mcp-clients/clients.js";
export { diff } from "./mcp-clients/diff.js";

export const runAgent = lazily(() => import("./agent.js"), "runAgent");
export type { AgentOptions, AgentRequest, AgentResult } from "./agent.js";

const environments = () => import("./environments.js");
export const pruneEnvironments = lazily(environments, "pruneEnvironments");
export const pullEnvironment = lazily(environments, "pullEnvironment");
export const removeEnvironment = lazily(environments, "removeEnvironment");
export const warmEnvironment = lazily(environments, "warmEnvironment");
export type { WarmRequest, WarmResult } from "./environments.js";
export { environmentNames, exportEnvironment, isImagePath, listEnvironments, inspectEnvironment, type Environment, type EnvironmentDetails, type EnvironmentImage, type ExportResult, type LayerProgress, type PullPhase, type PullProgress } from "../environments/index.js";

const vms = () => import("./vms/index.js");
export const attachVm = lazily(vms, "attachVm");
export const createVm = lazily(vms, "createVm");
export const deleteVm = lazily(vms, "deleteVm");
export const execVm = lazily(vms, "execVm");
export const listVms = lazily(vms, "listVms");
export const listVmsFor = lazily(vms, "listVmsFor");
export const networkInfoVm = lazily(vms, "networkInfoVm");
export const networkInfoOf = lazily(vms, "networkInfoOf");
export const setNetworkOf = lazily(vms, "setNetworkOf");
export const setNetworkVm = lazily(vms, "setNetworkVm");
export const auditVm = lazily(vms, "auditVm");
export const openVm = lazily(vms, "openVm");
export const reapExpired = lazily(vms, "reapExpired");
export const startVm = lazily(vms, "startVm");
export const statsVm = lazily(vms, "statsVm");
export const statusVm = lazily(vms, "statusVm");
export const stopVm = lazily(vms, "stopVm");
export const vmLogs = lazily(vms, "vmLogs");
export type { AuditRecord, CreateRequest, NetworkCounters, NetworkInfo, OneCommand, OpenedVm, OpenRequest, Vm, VmState, VmStats } from "./vms/index.js";

// What is done in a VM that answers; all but `spawnInVm` wait anyway.
export { execInVm } from "./exec.js";
export { spawnInVm, type ProcessExit, type SpawnedProcess, type SpawnRequest } from "./spawn.js";
export { SharedVms } from "./vms/shared.js";
const jobs = () => import("./jobs.js");
export const attachJob = lazily(jobs, "attachJob");
export const forgetJob = lazily(jobs, "forgetJob");
export const killJob = lazily(jobs, "killJob");
export const listJobs = lazily(jobs, "listJobs");
export const startJob = lazily(jobs, "startJob");
export type { AttachedJob, Job, JobExit, JobRequest } from "./jobs.js";
const copies = () => import("./copy/copy.js");
export const copyIn = lazily(copies, "copyIn");
export const copyOut = lazily(copies, "copyOut");
export type { CopyOptions, CopyResult } from "./copy/copy.js";
export type { CopyProgress } from "./copy/progress.js";
export const readWhole = lazily(() => import("./files.js"), "readWhole");
export type { Change, FileType, GuestEntry, GuestPath, GuestStat, GuestStats, SignalScope } from "../channel/index.js";
