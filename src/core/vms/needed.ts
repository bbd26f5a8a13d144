/** Which environments VMs need that do not run: the disk that each of them keeps was written over one, and fits no other. */
import { PyroError, toPyroError } from "../../base/error.js";
import { listVmIds, lookAt } from "./store.js";

/**
 * The environments' digests (`sha256:…`), each with one VM's id. Those of VMs that run are among them; VMs whose time is over need nothing. Throws where a VM's
 * record can't be read now, or is a newer pyro's: it may need any of them.
 */
export async function environmentsOfVms(): Promise<Map<string, string>> {
  const needed = new Map<string, string>();
  for (const vmId of await listVmIds()) {
    const known = await lookAt(vmId).catch((cause: unknown) => {
      const { code, message, hint } = toPyroError(cause);
      throw new PyroError(code, `No environment is removed, as it is not known which one the VM ${vmId} needs: ${message}`, { ...(hint !== undefined && { hint }), cause });
    });
    if (typeof known !== "object") continue;
    known.found?.release();
    const { state, environmentDigest } = known.record;
    if (environmentDigest !== undefined && state !== "failed") needed.set(environmentDigest, vmId);
  }
  return needed;
}
