/** What is asked of the network. */
import { PyroError } from "../base/error.js";

export function checkNetwork(network: boolean | undefined): void {
  if (!network) return;
  throw new PyroError("UNSUPPORTED", "Networking is not available yet: there is no gateway that could hold a policy.", { hint: "Leave out --network (network); the guest then has no network at all." });
}
