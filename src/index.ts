export { Pyro, Vm, type ExecVmOptions, type PullOptions, type RunInVmOptions, type VmExecOptions } from "./sdk/index.js";
export { PyroError, errorCodes, type ErrorCode } from "./base/error.js";
export type {
  Command,
  CreateRequest,
  Environment,
  EnvironmentDetails,
  ExecResult,
  NetworkInfo,
  OpenRequest,
  Phase,
  ProcessExit,
  PullProgress,
  SpawnedProcess,
  SpawnRequest,
  Vm as VmRecord,
  VmStats,
  WarmRequest,
  WarmResult,
} from "./core/index.js";
