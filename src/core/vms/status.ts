/** What is true of VMs now. */
import { logTail } from "../../vmm/index.js";
import { lifecycle } from "./lifecycle.js";
import { publicVm, type Vm } from "./record.js";
import { knowVm, listVmIds, lookAt } from "./store.js";

/** Throws NOT_FOUND. */
export async function statusVm(vmId: string): Promise<Vm> {
  const { record, found } = await knowVm(vmId);
  found?.release();
  return publicVm(record);
}

/** All that are there, oldest first. */
export async function listVms(): Promise<Vm[]> {
  const all: Vm[] = [];
  for (const vmId of await listVmIds()) {
    const known = await lookAt(vmId).catch(() => undefined); // one that can't be read is no reason to show none
    if (known === undefined || known === "gone") continue;
    known.found?.release();
    all.push(publicVm(known.record));
  }
  return all.sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
}

/** Those that `pyro vm VERB` makes sense for in the state they are in; all, for a verb that only looks. */
export async function listVmsFor(verb: string): Promise<Vm[]> {
  const event = ({ start: "start", exec: "use", stop: "stop" } as const)[verb];
  const vms = await listVms();
  if (event === undefined) return vms;
  return vms.filter(({ state }) => {
    const cell = lifecycle[state][event];
    return typeof cell === "string" && (event === "use" || cell !== state);
  });
}

/** The end of the guest's console, at most 64 KiB; control characters made harmless. Throws NOT_FOUND. */
export async function vmLogs(vmId: string, lines = 1000): Promise<string> {
  const { directory, found } = await knowVm(vmId);
  found?.release();
  return logTail(directory, undefined, lines);
}

export interface NetworkInfo {
  vmId: string;
  networkEnabled: boolean;
  /** What the guest may reach. */
  policy: "none";
}

/** Throws NOT_FOUND. */
export async function networkInfoVm(vmId: string): Promise<NetworkInfo> {
  const { networkEnabled } = await statusVm(vmId);
  return { vmId, networkEnabled, policy: "none" };
}
