/** What a VM's gateway refused while a command ran: told as it happens, each once, and as many as somebody reads. */
import { withDeadline } from "../base/deadline.js";
import { toPyroError } from "../base/error.js";
import type { GatewayControl, GatewayEvent } from "../net/index.js";

/** Something that a guest asked for and did not get. */
export interface Refusal {
  /** Which rule refused it, as the audit has it. */
  rule: string;
  /** In one line. */
  reason: string;
  /** `tcp`, `udp`, `icmp`, `dns`, `tls`, `http`; `any` where the gateway itself is gone. */
  protocol: string;
  /** As the guest has resolved it, or as it asked for it. */
  name?: string;
  address?: string;
  port?: number;
}

const maxRefusals = 32;
/** The gateway tells before the guest gets its answer; this is for one that hangs. */
const lastMs = 5000;

export interface RefusalWatch {
  /** All of them, once what is on its way has come. */
  end(): Promise<Refusal[]>;
}

/** From now on. A gateway that is gone refuses everything; one that is not ready by the end (`isReady`) has not been asked for anything. */
export function watchRefusals(opening: Promise<{ control: GatewayControl; release: () => void }>, onRefused: (refusal: Refusal) => void = () => {}, isReady: () => boolean = () => true): RefusalWatch {
  const begun = Date.now();
  const found = new Map<string, Refusal>();
  const take = (event: GatewayEvent) => {
    if (event.event === "refused") add(refusalOf(event));
  };
  const add = (refusal: Refusal) => {
    if (found.size >= maxRefusals) return;
    const key = JSON.stringify(refusal);
    if (found.has(key)) return;
    found.set(key, refusal);
    onRefused(refusal);
  };
  const watching = opening.then(async (opened) => {
    opened.control.on("event", take);
    await opened.control.listen(["refused"]);
    return opened;
  });
  watching.catch((error: unknown) => add({ rule: "gateway", reason: toPyroError(error).message, protocol: "any" }));
  return {
    end: async () => {
      const opened = isReady() ? await watching.catch(() => undefined) : undefined;
      if (opened === undefined) {
        watching.then(({ release }) => release()).catch(() => {});
        return [...found.values()];
      }
      // Answered behind all that was told before, and with what was refused before we were listening: nobody waited for that.
      const info = await withDeadline(opened.control.info(), lastMs, "The gateway's last words").catch(() => undefined);
      for (const each of info?.last_refusals ?? []) if (Date.parse(each.time) >= begun) add(refusalOf(each));
      opened.control.off("event", take);
      opened.release();
      return [...found.values()];
    },
  };
}

function refusalOf({ rule = "", reason = "", protocol, name, address, port }: Omit<GatewayEvent, "event">): Refusal {
  return { rule, reason, protocol, ...(name !== undefined && { name }), ...(address !== undefined && { address }), ...(port !== undefined && { port }) };
}
