import { expect, test } from "vitest";
import { collect, eventually, leftovers, processesWith, pyro, startPyro } from "./pyro.js";

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
      const clean = await eventually(3000, () => leftovers(home).length === 0);
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
  expect(await eventually(3000, () => leftovers(home).length === 0)).toBe(true);
});

test("an interrupted pull leaves nothing that counts as installed, and the next one works", async () => {
  const fresh = `${home}/pull-test`;
  const env = { XDG_CACHE_HOME: fresh };
  for (const [signal, ms] of [["SIGINT", 3000], ["SIGKILL", 6000], ["SIGKILL", 12_000]] as const) {
    const child = startPyro(["env", "pull", "debian:12-base"], env);
    setTimeout(() => child.kill(signal), ms);
    await collect(child);
    const list = JSON.parse((await pyro(["env", "list", "--json"], { env })).stdout) as { environments: { installed: boolean }[] };
    expect(list.environments.map((each) => each.installed)).toEqual([false, false, false]);
    // mmdebstrap gets the time to take its chroot down
    expect(await eventually(25_000, () => processesWith(fresh).length === 0)).toBe(true);
  }
  const pulls = await Promise.all([pyro(["env", "pull", "debian:12-base"], { env, timeoutMs: 600_000 }), pyro(["env", "pull", "debian:12-base"], { env, timeoutMs: 600_000 })]);
  expect(pulls.map((each) => each.status)).toEqual([0, 0]);
  expect(pulls.filter((each) => each.stderr.includes("phase=waiting"))).toHaveLength(1);
  const ran = await pyro(["run", "debian:12-base", "--", "true"], { env });
  expect(ran.status).toBe(0);
  expect((await pyro(["env", "prune"], { env })).status).toBe(0);
  const { rmSync, readdirSync } = await import("node:fs");
  expect(readdirSync(`${fresh}/pyro-mcp/tmp`)).toEqual([]);
  rmSync(fresh, { recursive: true, force: true });
});
