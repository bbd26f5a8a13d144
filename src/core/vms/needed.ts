/** Which environments VMs need that do not run: the disk that each of them keeps was written over one, and fits no other. */
import { toPyroError } from "../../base/error.js";
import { log } from "../../base/log.js";
import { listVmIds, lookAt } from "./store.js";

/** The environments' digests (`sha256:…`), each with one VM's id. Those of VMs that run are among them; VMs whose time is over need nothing. */
export async function environmentsOfVms(): Promise<Map<string, string>> {
  const needed = new Map<string, string>();
  for (const vmId of await listVmIds()) {
    try {
      const known = await lookAt(vmId);
      if (typeof known !== "object") continue;
      known.found?.release();
      const { state, environmentDigest } = known.record;
      if (environmentDigest !== undefined && state !== "failed") needed.set(environmentDigest, vmId);
    } catch (error) {
      log("what a VM needs is not known", { vmId, why: toPyroError(error).message });
    }
  }
  return needed;
}
