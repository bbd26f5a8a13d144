import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { RunningVms } from "../../src/mcp/running-vms.js";

const is = async () => {};

test("those that have ended make room; what can't be looked at may run", async () => {
  const states: Record<string, "started" | "stopped" | "NOT_FOUND" | "HOST_MISSING"> = { "vm-a": "started", "vm-b": "HOST_MISSING", "vm-c": "stopped", "vm-d": "NOT_FOUND" };
  const running = new RunningVms(4, async (vmId) => {
    const state = states[vmId]!;
    if (state === "started" || state === "stopped") return { state };
    throw new PyroError(state, "");
  });
  for (const each of Object.keys(states)) await running.start(each, is);
  Object.assign(states, { "vm-e": "started", "vm-f": "started" });
  await running.start("vm-e", is);
  await running.start("vm-f", is);
  await expect(running.start("vm-g", is)).rejects.toMatchObject({ code: "DENIED", hint: "End one that is no longer needed with vm_delete: vm-a, vm-b, vm-e, vm-f." });
});

test("what begins to run while others are looked at is counted", async () => {
  const looks: ((state: "started" | "stopped") => void)[] = [];
  const running = new RunningVms(2, () => new Promise((resolve) => looks.push((state) => resolve({ state }))));
  await running.start("vm-ended", is);
  let begun = () => {};
  const first = running.start("vm-first", () => new Promise<void>((resolve) => (begun = resolve)));
  const second = running.start("vm-second", is);
  begun();
  await first;
  const answer = async (state: "started" | "stopped") => {
    await expect.poll(() => looks.length).toBe(1);
    looks.shift()!(state);
  };
  await answer("stopped");
  await answer("started");
  await second;
  const third = running.start("vm-third", is);
  await answer("started"); // two run: they have to be looked at again
  await answer("started");
  await expect(third).rejects.toMatchObject({ code: "DENIED" });
});
