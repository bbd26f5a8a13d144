// Memory of a running VM as the host counts it.
import { readFileSync } from "node:fs";

/** Kilobytes by name, of the QEMU below a VM's keeper (proc(5), smaps_rollup). */
export function rollup(vm) {
  const keeper = vm.vm.pid;
  const qemu = readFileSync(`/proc/${keeper}/task/${keeper}/children`, "latin1").trim().split(" ")[0];
  return Object.fromEntries([...readFileSync(`/proc/${qemu}/smaps_rollup`, "latin1").matchAll(/^(\w+):\s+(\d+) kB/gm)].map(([, key, value]) => [key, Number(value) * 1.024]));
}

/** Its own memory and its share of what others use too, megabytes. */
export function pssMb(vm) {
  return rollup(vm).Pss / 1000;
}
