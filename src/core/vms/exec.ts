/** One command in a VM with a record, and the VM is gone, whatever becomes of the command and of us. */
import { checkSignal, unlessAborted } from "../../base/deadline.js";
import { PyroError } from "../../base/error.js";
import type { FoundVm } from "../../vmm/index.js";
import { checkCommand } from "../command.js";
import { execInVm, guestCommand, timeoutOf, type ExecRequest, type ExecOptions, type ExecResult } from "../exec.js";
import { checkLimit } from "../limits.js";
import { openHost } from "../host-compat.js";
import type { Phase } from "../start.js";
import { connectVm } from "./connect.js";
import { next } from "./lifecycle.js";
import { hostTime, leftMs } from "./expiry.js";
import { knowVm, removeVm, tryVmLock, withVm } from "./store.js";

export type OneCommand = Omit<ExecRequest, "timeoutSeconds" | "captureBytes"> & {
  /** 1 to 86,400; default 30, with a terminal 86,400. */
  timeoutSeconds?: number;
  /** Bytes kept of each output stream, 1 KiB to 64 MiB; default 1 MiB. */
  captureBytes?: number;
};

export interface OneCommandOptions extends ExecOptions {
  /** Called with what whoever asked has to know, where the command runs on the host. */
  onPhase?: (phase: Phase) => void;
}

/** Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE (not started, or another one runs its one command), GUEST_LOST, VMM_EXITED, CANCELLED. */
export async function execVm(vmId: string, request: OneCommand, options: OneCommandOptions = {}): Promise<ExecResult> {
  const checked = { ...request, timeoutSeconds: timeoutOf(request), captureBytes: checkLimit("captureBytes", request.captureBytes) };
  checkCommand(request.command);
  (await import("../../channel/index.js")).checkExec(guestCommand(request)); // what can't even be asked for is no reason to lose the VM
  checkSignal(options.signal);
  const known = await knowVm(vmId);
  const { found } = known;
  if (known.record.executionMode === "host_compat" && known.record.state === "started") {
    found?.release();
    return execOnHost(vmId, checked, options);
  }
  if (found !== undefined && !(await own(found, options.signal))) {
    await checkStarted(vmId); // it may just have ended
    throw busy(vmId);
  }
  try {
    const vm = await connectVm(known, options);
    return await execInVm(vm, vm.environment, checked, options);
  } finally {
    if (found !== undefined) {
      await found.end();
      await clearAway(vmId);
    }
  }
}

/** Lets go of it unless it is ours; what was broken off may be, and ends with that. */
async function own(found: FoundVm, signal: AbortSignal | undefined): Promise<boolean> {
  let isOurs = false;
  try {
    return (isOurs = await unlessAborted(found.own(), signal));
  } finally {
    if (!isOurs) found.release();
  }
}

/** Throws NOT_FOUND, INVALID_STATE. */
async function checkStarted(vmId: string): Promise<void> {
  const { record, found } = await knowVm(vmId);
  found?.release();
  next(vmId, record.state, "use", record.lastError);
}

/** The VM is looked at again and its command begun while nobody else changes it; from then on others find that it runs. */
async function execOnHost(vmId: string, request: ExecRequest, options: OneCommandOptions): Promise<ExecResult> {
  const begun = await withVm(vmId, options.signal, async ({ directory, record, found }) => {
    if (found !== undefined) throw busy(vmId);
    next(vmId, record.state, "use", record.lastError);
    const ttlSeconds = Math.max(1, Math.ceil(leftMs(record, await hostTime()) / 1000));
    const host = await openHost({ vmId, ttlSeconds, network: record.networkEnabled, reason: record.hostReason ?? "", place: directory });
    options.onPhase?.({ phase: "start", executionMode: "host_compat", warning: host.warning });
    const result = execInVm(host, record.environment, request, options);
    await Promise.race([host.begun, result.catch(() => {})]);
    return { host, result };
  });
  try {
    return await begun.result;
  } finally {
    await begun.host.end();
    await clearAway(vmId);
  }
}

function busy(vmId: string): PyroError {
  return new PyroError("INVALID_STATE", `The VM ${vmId} runs its one command already, for another caller.`, { hint: "Create a VM for each command, or use `pyro vm exec` (connectVm in the SDK) for many commands on one." });
}

/** Whoever changes the VM at this moment clears it away, or the next reap does: it can't be found any more. */
async function clearAway(vmId: string): Promise<void> {
  const lock = await tryVmLock(vmId).catch(() => undefined);
  if (lock === undefined) return;
  try {
    await removeVm(vmId);
  } finally {
    await lock.release();
  }
}
