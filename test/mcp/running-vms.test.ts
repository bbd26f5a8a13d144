import { expect, test } from "vitest";
import { RunningVms } from "../../src/mcp/running-vms.js";

test("what begins to run while it is looked which do is counted", async () => {
  const list: ((running: string[]) => void)[] = [];
  const listed = () => new Promise<{ vmId: string; state: "started" }[]>((resolve) => list.push((ids) => resolve(ids.map((vmId) => ({ vmId, state: "started" })))));
  const running = new RunningVms(2, listed);
  await running.start("vm-ended", async () => {});
  let begun = () => {};
  const first = running.start("vm-first", () => new Promise<void>((resolve) => (begun = resolve)));
  const second = running.start("vm-second", async () => {});
  begun();
  await first;
  list.shift()!([]); // of before the first one ran
  await second;
  const third = running.start("vm-third", async () => {});
  expect(list).toHaveLength(1); // two run: it has to be looked again
  list.shift()!(["vm-first", "vm-second"]);
  await expect(third).rejects.toMatchObject({ code: "DENIED", hint: "End one that is no longer needed with vm_delete: vm-first, vm-second." });
});
