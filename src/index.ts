export { Pyro, type PullOptions, type RunInVmOptions } from "./sdk/index.js";
export { PyroError, errorCodes, type ErrorCode } from "./base/error.js";
export type { Command, Environment, EnvironmentDetails, ExecResult, Phase, PullProgress, WarmRequest, WarmResult } from "./core/index.js";
