/** How much processor time a kept program has used, from /proc. */
import { readFile } from "node:fs/promises";

const msPerTick = 10; // USER_HZ is 100 on every architecture that Linux runs on here

/** Milliseconds used by the children of process `keeper`; undefined if /proc does not tell. */
export async function childrenCpuMs(keeper: number): Promise<number | undefined> {
  try {
    const children = (await readFile(`/proc/${keeper}/task/${keeper}/children`, "latin1")).trim().split(/\s+/).filter(Boolean).slice(0, 16);
    const times = await Promise.all(children.map(async (pid) => parseCpuMs(await readFile(`/proc/${pid}/stat`, "latin1"))));
    return times.length === 0 ? undefined : times.reduce((sum, each) => sum + each, 0);
  } catch {
    return undefined;
  }
}

/** User and system time of a line of /proc/PID/stat (proc(5)), milliseconds. The name in it may hold spaces and brackets. */
export function parseCpuMs(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * msPerTick;
}

/** When the process of such a line was started, milliseconds since the host's boot. */
export function parseStartMs(stat: string): number {
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]) * msPerTick;
}
