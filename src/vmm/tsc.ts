/** The rate of the host's time stamp counter, which a TCG guest sees tick at the same rate and can't measure reliably itself. */
import { runChild } from "../base/child.js";
import { PyroError } from "../base/error.js";
import { nativeProgram } from "../base/paths.js";
import { hostBootId, readFact, writeFact } from "./host-facts.js";

/** kHz. Measured once per boot of the host (25 ms), then remembered. */
export async function tscKhz(signal?: AbortSignal): Promise<number> {
  const key = await hostBootId();
  const kept = await readFact("tsc", key);
  if (isRate(kept)) return kept;
  const { code, stdout, stderr } = await runChild(nativeProgram("pyro-keeper"), ["tsc"], { timeoutMs: 10_000, ...(signal && { signal }) });
  const rate = Number(stdout.toString("latin1"));
  if (code !== 0 || !isRate(rate)) throw new PyroError("HOST_MISSING", `The rate of this host's time stamp counter can't be measured: ${stderr.trim()}`);
  await writeFact("tsc", key, rate);
  return rate;
}

function isRate(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 100_000 && value <= 20_000_000;
}
