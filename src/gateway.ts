/** Entry of the network gateway, a process beside each networked VM: the port to the network, with the rules that core has for it. */
import { BlockList } from "node:net";
import { runGateway, type Decision, type PolicyHook } from "./net/index.js";

// Stands in for core's policy: the public internet and nothing else.
const closed = new BlockList();
for (const [network, prefix] of [["0.0.0.0", 8], ["10.0.0.0", 8], ["100.64.0.0", 10], ["127.0.0.0", 8], ["169.254.0.0", 16], ["172.16.0.0", 12], ["192.0.0.0", 24], ["192.168.0.0", 16], ["198.18.0.0", 15], ["224.0.0.0", 3]] as const) closed.addSubnet(network, prefix);

function decide(address: string, own: boolean): Decision {
  if (own || closed.check(address)) return { allowed: false, rule: "public", reason: `${address} is not on the public internet` };
  return { allowed: true, rule: "public" };
}

const hook: PolicyHook = {
  name: () => ({ allowed: true, rule: "public" }),
  address: ({ address, own }) => decide(address, own),
  connect: ({ address, own }) => decide(address, own),
  helloName: () => ({ allowed: true, rule: "public" }),
};

void runGateway(() => hook).then(() => process.exit(0));
