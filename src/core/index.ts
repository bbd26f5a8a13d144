/** What faces may use. */
export { runInVm, type RunRequest, type RunOptions } from "./run.js";
export type { Command, ExecResult } from "./exec.js";
export type { Phase } from "./start.js";
export { diagnose, type DoctorCheck, type DoctorOptions, type DoctorReport } from "./doctor.js";
export { limits } from "./limits.js";
export { pruneEnvironments, pullEnvironment, warmEnvironment, type WarmRequest, type WarmResult } from "./environments.js";
export {
  listEnvironments,
  inspectEnvironment,
  type Environment,
  type EnvironmentDetails,
  type PullProgress,
} from "../environments/index.js";
