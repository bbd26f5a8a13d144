/** Entry of the network gateway, a process beside each networked VM: the port to the network, with the rules that core has for it. */
import { makeHook } from "./core/policy/index.js";
import { runGateway } from "./net/index.js";

void runGateway(makeHook).then(() => process.exit(0));
