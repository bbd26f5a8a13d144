/** Pure decisions about a guest's network. Of all of core the gateway has this alone in it. */
import type { PolicyHook } from "../../net/index.js";
import { policyHook } from "./decide.js";
import { readPolicy, rulesOf } from "./policy.js";

export { parseHostPattern, type HostPattern } from "./host-pattern.js";
export { parseAddress, parseNet } from "./ipv4.js";
export { policyLimits, rulesOf, type NetworkPolicy } from "./policy.js";
export { policyHook } from "./decide.js";
export { specialRangeOf, specialRanges } from "./special-ranges.js";

/** Rules out of what the gateway is told. Throws INVALID_ARGUMENT. */
export function makeHook(policy: unknown): PolicyHook {
  return policyHook(rulesOf(readPolicy(policy)));
}
