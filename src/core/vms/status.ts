/** What is true of VMs now. */
import { checkSignal } from "../../base/deadline.js";
import { logTail } from "../../vmm/index.js";
import { lifecycle } from "./lifecycle.js";
import { publicVm, type Vm } from "./record.js";
import { knowVm, listVmIds, lookAt } from "./store.js";

interface Abortable {
  signal?: AbortSignal;
}

/** Throws NOT_FOUND, CANCELLED. */
export async function statusVm(vmId: string, options: Abortable = {}): Promise<Vm> {
  checkSignal(options.signal);
  const { record, found } = await knowVm(vmId);
  found?.release();
  return publicVm(record);
}

/** All that are there, oldest first. Throws CANCELLED. */
export async function listVms(options: Abortable = {}): Promise<Vm[]> {
  checkSignal(options.signal);
  const all: Vm[] = [];
  for (const vmId of await listVmIds()) {
    checkSignal(options.signal);
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

/** The end of the guest's console, at most 64 KiB; control characters made harmless. Throws NOT_FOUND, CANCELLED. */
export async function vmLogs(vmId: string, lines = 1000, options: Abortable = {}): Promise<string> {
  checkSignal(options.signal);
  const { directory, found } = await knowVm(vmId);
  found?.release();
  return logTail(directory, undefined, lines);
}
