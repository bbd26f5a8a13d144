/** VMs that outlive a process, by their ids. */
export { createVm, type CreateRequest } from "./create.js";
export { startVm } from "./start.js";
export { execVm, type OneCommand } from "./exec.js";
export { stopVm } from "./stop.js";
export { deleteVm } from "./delete.js";
export { listVms, networkInfoVm, statusVm, vmLogs, type NetworkInfo } from "./status.js";
export { attachVm, openVm, type OpenedVm, type OpenRequest } from "./open.js";
export { reapExpired } from "./reap.js";
export type { Vm } from "./record.js";
export type { VmState } from "./lifecycle.js";
