import { expect, test } from "vitest";
import { collect, eventually, leftovers, processesWith, startPyro } from "./pyro.js";

const home = process.env["HOME"]!;

// Where in its life a run is when it is ended; the times spread over start-up, boot, command and end under emulation.
const moments = [40, 120, 300, 700, 1200, 1800, 2500, 3200, 4000, 5000];

for (const signal of ["SIGKILL", "SIGTERM", "SIGINT"] as const) {
  test(`${signal} at any moment leaves no process and no file`, async () => {
    for (const ms of moments) {
      const child = startPyro(["run", "debian:12-base", "--", "sh", "-c", "sleep 1; echo done"]);
      setTimeout(() => child.kill(signal), ms);
      const result = await collect(child);
      if (result.signal === null && result.status !== 0) expect([130, 143]).toContain(result.status);
      const clean = await eventually(() => leftovers(home).length === 0);
      expect({ ms, clean, left: leftovers(home) }).toEqual({ ms, clean: true, left: [] });
    }
  });
}

test("the keeper killed: QEMU goes with it and pyro says what happened", async () => {
  const child = startPyro(["run", "debian:12-base", "--", "sh", "-c", "echo ready; sleep 60"]);
  child.stdout!.once("data", () => {
    const keeper = processesWith("pyro-keeper keep").find((line) => line.includes("qemu") && line.includes(home))!;
    process.kill(Number(keeper.split(" ")[0]), "SIGKILL");
  });
  const result = await collect(child);
  expect(result.status).toBe(125);
  expect(result.stderr).toContain("error:");
  expect(await eventually(() => leftovers(home).length === 0)).toBe(true);
});
