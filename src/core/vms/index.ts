/** VMs that outlive a process, by their ids. */
export { createVm, type CreateRequest } from "./create.js";
export { startVm } from "./start.js";
export { execVm, type OneCommand } from "./exec.js";
export { stopVm } from "./stop.js";
export { deleteVm } from "./delete.js";
export { statsVm, type VmStats } from "./stats.js";
export { listVms, listVmsFor, statusVm, vmLogs } from "./status.js";
export { networkInfoOf, networkInfoVm, setNetworkOf, setNetworkVm, type NetworkCounters, type NetworkInfo } from "./network.js";
export { auditVm, type AuditRecord } from "./audit.js";
export { attachVm, openVm, type OpenedVm, type OpenRequest } from "./open.js";
export { reapExpired } from "./reap.js";
export type { Vm } from "./record.js";
export type { VmState } from "./lifecycle.js";
