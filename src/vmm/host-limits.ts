/** What a monitor may take of the host at most, enforced by a control group of its own where the host lets us make one (`keeper/group.h`). */
import { runChild } from "../base/child.js";
import { nativeProgram } from "../base/paths.js";
import type { VmSpec } from "./vmm.js";

/** Besides the guest's memory: the monitor itself, translated code, and the pages of its files that can't be let go of at once. */
const overheadMib = 256;
const overheadPerProcessorMib = 8;
/** QEMU does its disk work in up to 64 threads for each disk. */
const otherThreads = 160;

/** For a gateway beside the monitor, which shares its group. */
const gatewayMib = 256;
const gatewayThreads = 32;

/** File of the group and its value, for this machine. */
export function hostLimits({ vcpuCount, memMib, gateway }: Pick<VmSpec, "vcpuCount" | "memMib" | "gateway">): Record<string, string> {
  const beside = gateway === undefined ? 0 : 1;
  return {
    "memory.max": String((memMib + overheadMib + vcpuCount * overheadPerProcessorMib + beside * gatewayMib) * 1048576),
    "memory.oom.group": "1", // a monitor without some of its threads is of no use
    "pids.max": String(vcpuCount + otherThreads + beside * gatewayThreads), // threads count
    "cpu.max": `${(vcpuCount + 1 + beside) * 100_000} 100000`, // one more than the guest has, for all that the monitor does besides
    "io.weight": "default 50", // half of what an ordinary process has of a disk that is busy, where the kernel weighs that
    "cpu.weight": String(Math.min(10_000, vcpuCount * 100)), // as much as so many ordinary processes
  };
}

/** What of it this process could set for a VM. */
export interface LimitsVerdict {
  /** The files that could be written; none where no group can be made. */
  files: readonly string[];
  /** Where the groups are made, or why none is. */
  detail: string;
}

/** Makes a group and removes it again. */
export async function inspectLimits(): Promise<LimitsVerdict> {
  const limits = Object.entries(hostLimits({ vcpuCount: 1, memMib: 128 })).map(([file, value]) => `${file}=${value}`);
  const { stdout } = await runChild(nativeProgram("pyro-keeper"), ["limits", ...limits], { timeoutMs: 10_000 });
  const said = stdout.toString("utf8").trim();
  const [, files, path] = /^limits((?: [a-z.]+)*) in (.*)$/.exec(said) ?? [];
  return path === undefined ? { files: [], detail: said.replace(/^none: /, "") } : { files: files!.trim().split(" ").filter(Boolean), detail: path };
}
