/** Who sends a byte now and then is never silent, and never done: what comes has to come at a pace. */
import { performance } from "node:perf_hooks";
import { BrokenOff } from "../images/blobs.js";

/** At least so many bytes within so much time of waiting for them: 546 bytes a second, less than a modem's. */
export const paceLimits = { minBytes: 65_536, windowMs: 120_000 } as const;

/** The parts of `body` as they come. What its reader does between them costs it nothing. Throws BrokenOff: asking again may lead to somebody faster. `clock`: milliseconds. */
export async function* atPace(body: AsyncIterable<Uint8Array>, host: string, clock: () => number = () => performance.now()): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  let waitedMs = 0;
  let asked = clock();
  for await (const part of body) {
    waitedMs += clock() - asked;
    bytes += part.length;
    if (waitedMs >= paceLimits.windowMs) {
      if (bytes < paceLimits.minBytes) throw tooSlow(host, bytes, waitedMs);
      bytes = 0;
      waitedMs = 0;
    }
    yield part;
    asked = clock();
  }
}

function tooSlow(host: string, bytes: number, waitedMs: number): BrokenOff {
  const { minBytes, windowMs } = paceLimits;
  return new BrokenOff(`${host} sent ${bytes} bytes in ${Math.round(waitedMs / 1000)} s, under the limit minBytes (${minBytes} in ${windowMs / 1000} s).`, {
    hint: "Try again later: layers go on from what has come of them. Or name somebody else who has it: `pyro env pull NAME --source IMAGE`, PYRO_DOCKER_HUB_MIRROR.",
  });
}
