import { toJson, type Json } from "../base/json.js";
import type { Vm } from "../core/index.js";
import type { Outcome } from "./tool.js";

/** A VM's record as a result. */
export function vmOutcome(vm: Vm): Outcome {
  const { vmId, environment, state, vcpuCount, memMib, expiresAt, lastError } = vm;
  return {
    structured: toJson(vm) as { [key: string]: Json },
    text: `${vmId} ${state}: ${environment}, ${vcpuCount} vCPU, ${memMib} MiB, until ${expiresAt}${lastError === undefined ? "" : `\n${lastError}`}`,
  };
}
