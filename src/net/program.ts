/** The gateway's program: who starts it gives it its descriptors, and tells it over one of them what to be. */
import { fileURLToPath } from "node:url";

/** The descriptors that a gateway is started with. */
export const gatewayDescriptors = {
  /** The guest's cable. */
  cable: 3,
  /** Whoever made it: the only one who may configure it. */
  maker: 4,
  /** A listening socket, for VMs that others use as well; may be absent. */
  listener: 5,
} as const;

/** The command that is the gateway. Flags for the engine would cost 10 ms: what Node has compiled ahead is then not used. */
export function gatewayProgram(): { command: string; args: string[] } {
  return { command: process.execPath, args: [fileURLToPath(new URL("../gateway.cjs", import.meta.url))] };
}
