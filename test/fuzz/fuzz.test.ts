// A second for each decoder, always the same bytes, so that a change is what turns it red; `npm run fuzz -- NAME --seconds N` for longer and with others. A fault names its seed and its bytes.
import { afterAll, expect, test } from "vitest";
import { Coverage, fuzz } from "./engine.js";

const coverage = new Coverage();
await coverage.begin();
const { targets } = await import("./targets.js");
await coverage.loaded();
afterAll(() => coverage.end());

const only = process.env["PYRO_FUZZ"];
const seconds = Number(process.env["PYRO_FUZZ_SECONDS"] ?? 1);
const seed = Number(process.env["PYRO_FUZZ_SEED"] ?? 1);

test.each(targets.filter(({ name }) => only === undefined || name === only))("$name: taken or refused, and nothing else", { timeout: seconds * 1000 + 600_000 }, async (target) => {
  await coverage.of([]);
  const { executions, taken, refused, slowestMs } = await fuzz(target, { ms: seconds * 1000, seed, keep: only !== undefined });
  const covered = await coverage.of(target.sources);
  console.log(`[fuzz] ${target.name} seed=${seed} executions=${executions} taken=${taken} refused=${refused} slowest_ms=${Math.round(slowestMs)} coverage: ${[...covered].map(([source, percent]) => `${source} ${percent}%`).join(", ")}`);
  expect(taken).toBeGreaterThan(0);
  expect([...covered.keys()].toSorted()).toEqual([...target.sources].toSorted()); // else a source was renamed, and nobody would see that it isn't tried
});

test("there are targets with this name", () => {
  if (only !== undefined) expect(targets.map(({ name }) => name)).toContain(only);
});
