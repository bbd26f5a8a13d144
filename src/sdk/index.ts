export { createServer, type CreateServerOptions } from "./create-server.js";
export { Pyro, type BuildEnvironmentOptions, type ExecVmOptions, type PullOptions, type RunInVmOptions } from "./pyro.js";
export { GuestFiles, type Abortable } from "./files.js";
export { GuestJobs } from "./jobs.js";
export { Vm, type VmExecOptions } from "./vm.js";
