/** The first that a guest hears, before any command: who it is, fresh randomness, and what time it is. */
import type { Channel, Identity } from "../channel/index.js";

/** What a guest's clock may be behind the host's when it begins, milliseconds; a message is on its way for some 10, and for as long as it likes to where the host is busy. */
const lateMs = 150;
/** On a host that is always late this is as good as it gets. */
const maxCorrections = 2;

/** Rejects as `identify` does. `until`: how long it may take. */
export async function introduce(channel: Pick<Channel, "identify" | "setClock">, identity: Identity, until: AbortSignal): Promise<void> {
  let { clockNs } = await channel.identify(identity, until);
  for (let n = 0; n < maxCorrections && isLate(clockNs); n++) ({ clockNs } = await channel.setClock(until));
}

/** What the guest's clock showed when it answered is behind by what the message took to get there, and by now by what the answer took as well. */
function isLate(clockNs: bigint): boolean {
  return Date.now() - Number(clockNs / 1_000_000n) > lateMs;
}
