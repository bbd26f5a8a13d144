// Memory of a running VM as the host counts it.
import { readFileSync } from "node:fs";

/** Kilobytes by name (proc(5), smaps_rollup). */
export function rollup(pid) {
  return Object.fromEntries([...readFileSync(`/proc/${pid}/smaps_rollup`, "latin1").matchAll(/^(\w+):\s+(\d+) kB/gm)].map(([, key, value]) => [key, Number(value) * 1.024]));
}

/** The same, of the QEMU below a VM's keeper. */
export function rollupOf(vm) {
  const keeper = vm.vm.pid;
  return rollup(readFileSync(`/proc/${keeper}/task/${keeper}/children`, "latin1").trim().split(" ")[0]);
}

/** A VM's own memory and its share of what others use too, megabytes. */
export function pssMb(vm) {
  return rollupOf(vm).Pss / 1000;
}
