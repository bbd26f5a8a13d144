/** What faces may use. */
export { runInVm, type RunRequest, type RunOptions } from "./run.js";
export type { Command } from "./command.js";
export type { ExecResult, Surroundings } from "./exec.js";
export { execInVm, type ExecOptions } from "./exec.js";
export { spawnInVm, type ProcessExit, type SpawnedProcess, type SpawnRequest } from "./spawn.js";
export { readWhole } from "./files.js";
export { Capture } from "./capture.js";
export { SharedVms } from "./vms/shared.js";
export type { Change, FileType, GuestEntry, GuestPath, GuestStat, SignalScope } from "../channel/index.js";
export { copyIn, copyOut, type CopyOptions, type CopyResult } from "./copy/copy.js";
export type { CopyProgress } from "./copy/progress.js";
export * from "./vms/index.js";
export type { Phase } from "./start.js";
export type { DoctorCheck, DoctorOptions, DoctorReport } from "./doctor.js";
export const diagnose: typeof import("./doctor.js").diagnose = async (...args) => (await import("./doctor.js")).diagnose(...args); // loaded when it is needed
export { limits } from "./limits.js";
export { pruneEnvironments, pullEnvironment, warmEnvironment, type WarmRequest, type WarmResult } from "./environments.js";
export {
  listEnvironments,
  inspectEnvironment,
  type Environment,
  type EnvironmentDetails,
  type PullPhase,
  type PullProgress,
} from "../environments/index.js";
