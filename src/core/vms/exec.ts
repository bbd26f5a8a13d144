/** One command in a VM with a record, and the VM is gone, whatever becomes of the command and of us. */
import { checkSignal } from "../../base/deadline.js";
import { PyroError } from "../../base/error.js";
import type { FoundVm } from "../../vmm/index.js";
import { checkCommand } from "../command.js";
import { execInVm, type ExecRequest, type ExecOptions, type ExecResult } from "../exec.js";
import { checkLimit } from "../limits.js";
import { connectVm } from "./connect.js";
import { next } from "./lifecycle.js";
import { knowVm, removeVm, tryVmLock } from "./store.js";

export type OneCommand = Omit<ExecRequest, "timeoutSeconds" | "captureBytes"> & {
  /** 1 to 86,400; default 30. */
  timeoutSeconds?: number;
  /** Bytes kept of each output stream, 1 KiB to 64 MiB; default 1 MiB. */
  captureBytes?: number;
};

/** Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE (not started, or another one runs its one command), GUEST_LOST, VMM_EXITED, CANCELLED. */
export async function execVm(vmId: string, request: OneCommand, options: ExecOptions = {}): Promise<ExecResult> {
  const checked = { ...request, timeoutSeconds: checkLimit("timeoutSeconds", request.timeoutSeconds), captureBytes: checkLimit("captureBytes", request.captureBytes) };
  checkCommand(request.command);
  checkSignal(options.signal);
  const known = await knowVm(vmId);
  const { found } = known;
  if (found !== undefined && !(await own(found))) {
    await checkStarted(vmId); // it may just have ended
    throw new PyroError("INVALID_STATE", `The VM ${vmId} runs its one command already, for another caller.`, { hint: "Create a VM for each command, or use `pyro vm exec` (connectVm in the SDK) for many commands on one." });
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

/** Lets go of it unless it is ours. */
async function own(found: FoundVm): Promise<boolean> {
  let isOurs = false;
  try {
    return (isOurs = await found.own());
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
