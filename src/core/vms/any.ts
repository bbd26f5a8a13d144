import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { stateDirectory } from "../../base/paths.js";

/** Whether any VM outlives its process here; one look at a directory, and nothing else has to be loaded for it. */
export async function anyVms(): Promise<boolean> {
  return readdir(join(stateDirectory(), "vms")).then((names) => names.length > 0, () => false);
}
