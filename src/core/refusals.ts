/** What a VM's gateway refused while a command ran: told as it happens, each once, and as many as somebody reads. */
import type { GatewayControl, GatewayEvent } from "../net/index.js";
import { withDeadline } from "../base/deadline.js";

/** Something that a guest asked for and did not get. */
export interface Refusal {
  /** Which rule refused it, as the audit has it. */
  rule: string;
  /** In one line. */
  reason: string;
  protocol: string;
  /** As the guest has resolved it, or as it asked for it. */
  name?: string;
  address?: string;
  port?: number;
}

const maxRefusals = 32;
/** The gateway tells before the guest gets its answer; this is for one that hangs. */
const lastMs = 2000;

export interface RefusalWatch {
  /** All of them, once what is on its way has come. */
  end(): Promise<Refusal[]>;
}

/** From now on. What can't be watched, because the gateway is gone, refuses nothing any more. */
export function watchRefusals(opening: Promise<{ control: GatewayControl; release: () => void }>, onRefused: (refusal: Refusal) => void = () => {}): RefusalWatch {
  const found = new Map<string, Refusal>();
  const take = (event: GatewayEvent) => {
    if (event.event !== "refused" || found.size >= maxRefusals) return;
    const refusal = refusalOf(event);
    const key = JSON.stringify(refusal);
    if (found.has(key)) return;
    found.set(key, refusal);
    onRefused(refusal);
  };
  const watching = opening.then(async (opened) => {
    opened.control.on("event", take);
    await opened.control.listen();
    return opened;
  });
  watching.catch(() => {});
  return {
    end: async () => {
      const opened = await watching.catch(() => undefined);
      if (opened === undefined) return [...found.values()];
      await withDeadline(opened.control.info(), lastMs, "The gateway's last words").catch(() => {}); // answered behind all that was told before
      opened.control.off("event", take);
      opened.release();
      return [...found.values()];
    },
  };
}

function refusalOf({ rule = "", reason = "", protocol, name, address, port }: GatewayEvent): Refusal {
  return { rule, reason, protocol, ...(name !== undefined && { name }), ...(address !== undefined && { address }), ...(port !== undefined && { port }) };
}
