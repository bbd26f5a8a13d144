/** What is in the place of a VM that is none, its command running on the host: nothing before it, its keeper's socket meanwhile, how it ended afterwards. */
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { placeNames } from "../../vmm/index.js";

/** Whether it was begun, whatever became of it: a socket that nobody serves is of a keeper that was killed. */
export async function wasHostRun(directory: string): Promise<boolean> {
  const there = await Promise.all([placeNames.exit, placeNames.control].map((name) => stat(join(directory, name)).then(() => true, () => false)));
  return there.includes(true);
}

/** For a VM that is started again after it was stopped. */
export async function forgetHostRun(directory: string): Promise<void> {
  await Promise.all([placeNames.exit, placeNames.control].map((name) => rm(join(directory, name), { force: true })));
}
