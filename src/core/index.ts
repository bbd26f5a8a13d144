/** What faces may use. */
export { runInVm, type RunRequest, type RunOptions } from "./run.js";
export type { Command } from "./command.js";
export { execInVm, timeoutOf, type CommandTerminal, type ExecOptions, type ExecResult, type TerminalSize } from "./exec.js";
export { spawnInVm, type ProcessExit, type SpawnedProcess, type SpawnRequest } from "./spawn.js";
export * from "./vms/index.js";
export type { Phase } from "./start.js";
export type { DoctorCheck, DoctorOptions, DoctorReport } from "./doctor.js";
export const diagnose: typeof import("./doctor.js").diagnose = async (...args) => (await import("./doctor.js")).diagnose(...args); // loaded when it is needed
export { limits } from "./limits.js";
export { pruneEnvironments, pullEnvironment, warmEnvironment, type WarmRequest, type WarmResult } from "./environments.js";
export {
  environmentNames,
  listEnvironments,
  inspectEnvironment,
  type Environment,
  type EnvironmentDetails,
  type PullProgress,
} from "../environments/index.js";
