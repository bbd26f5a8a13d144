/** What can happen to a VM that has a record, in which state, and what it is then. Pure: the one table that everything else asks. */
import { PyroError } from "../../base/error.js";

export type VmState = "created" | "started" | "stopped" | "failed";

export const vmEvents = ["start", "startFailed", "use", "stop", "delete", "poweredOff", "died", "ownerGone", "expired"] as const;
/**
 * `start`, `use` (commands, files), `stop` and `delete` are asked for. The others are found out: `startFailed`; `poweredOff`, the guest did it itself; `died`, the
 * monitor or its keeper was killed, or the host went down; `ownerGone`, whoever ran its one command is done or died; `expired`, the time to live is over.
 */
export type VmEvent = (typeof vmEvents)[number];

/** The next state; `gone` where nothing is left of it; or why it can't be, as a clause behind "The VM x", with the next step. */
export type Cell = VmState | "gone" | { refused: string; hint: (vmId: string) => string };

const start = (vmId: string) => `pyro vm start ${vmId}`;
const remake = (vmId: string) => `pyro vm logs ${vmId} may tell more. Delete it and create another one: pyro vm delete ${vmId}`;
const impossible: Cell = { refused: "can't have come to this", hint: () => "This is a fault of pyro." };

export const lifecycle: Readonly<Record<VmState, Readonly<Record<VmEvent, Cell>>>> = {
  created: {
    start: "started",
    startFailed: "failed",
    use: { refused: "has not been started", hint: start },
    stop: "stopped",
    delete: "gone",
    poweredOff: impossible,
    died: impossible,
    ownerGone: impossible,
    expired: "gone",
  },
  started: {
    start: { refused: "runs already", hint: (vmId) => `pyro vm exec ${vmId} -- COMMAND` },
    startFailed: impossible,
    use: "started",
    stop: "stopped",
    delete: "gone",
    poweredOff: "stopped",
    died: "failed",
    ownerGone: "gone",
    expired: "gone",
  },
  stopped: {
    start: "started",
    startFailed: "stopped", // its disk is as it was, and what was in the way may go
    use: { refused: "is stopped", hint: start },
    stop: "stopped",
    delete: "gone",
    poweredOff: impossible,
    died: impossible,
    ownerGone: impossible,
    expired: "gone",
  },
  failed: {
    start: { refused: "failed", hint: remake },
    startFailed: impossible,
    use: { refused: "failed", hint: remake },
    stop: { refused: "failed", hint: remake },
    delete: "gone",
    poweredOff: impossible,
    died: impossible,
    ownerGone: impossible,
    expired: "gone",
  },
};

/** The state after `event`. Throws INVALID_STATE where the table refuses; `why` is what the VM's record says of its failure. */
export function next(vmId: string, state: VmState, event: VmEvent, why?: string): VmState | "gone" {
  const cell = lifecycle[state][event];
  if (typeof cell === "string") return cell;
  throw new PyroError("INVALID_STATE", `The VM ${vmId} ${cell.refused}${why === undefined || state !== "failed" ? "" : `: ${why}`}.`, { hint: cell.hint(vmId) });
}

export const vmStates: readonly VmState[] = Object.keys(lifecycle) as VmState[];
