/** One command in a VM with a record, and the VM is gone, whatever becomes of the command and of us. */
import { PyroError } from "../../base/error.js";
import { checkCommand } from "../command.js";
import { execInVm, timeoutOf, type ExecRequest, type ExecOptions, type ExecResult } from "../exec.js";
import { checkLimit } from "../limits.js";
import { connectVm } from "./connect.js";
import { knowVm, removeVm, tryVmLock } from "./store.js";

export type OneCommand = Omit<ExecRequest, "timeoutSeconds" | "captureBytes"> & {
  /** 1 to 86,400; default 30, with a terminal 86,400. */
  timeoutSeconds?: number;
  /** Bytes kept of each output stream, 1 KiB to 64 MiB; default 1 MiB. */
  captureBytes?: number;
};

/** Throws NOT_FOUND, INVALID_ARGUMENT, INVALID_STATE (not started, or another one runs its one command), GUEST_LOST, VMM_EXITED, CANCELLED. */
export async function execVm(vmId: string, request: OneCommand, options: ExecOptions = {}): Promise<ExecResult> {
  const checked = { ...request, timeoutSeconds: timeoutOf(request), captureBytes: checkLimit("captureBytes", request.captureBytes) };
  checkCommand(request.command);
  const known = await knowVm(vmId);
  const { found } = known;
  if (found !== undefined && !(await found.own())) {
    found.release();
    throw new PyroError("INVALID_STATE", `The VM ${vmId} runs its one command already, for another caller.`, { hint: "Create a VM for each command, or use `pyro vm exec` (connectVm in the SDK) for many commands on one." });
  }
  try {
    const vm = await connectVm(known, options.signal);
    return await execInVm(vm, vm.environment, checked, options);
  } finally {
    if (found !== undefined) {
      await found.end();
      await clearAway(vmId);
    }
  }
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
