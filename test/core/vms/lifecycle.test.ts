import { expect, test } from "vitest";
import { lifecycle, next, vmEvents, vmStates, type VmEvent, type VmState } from "../../../src/core/vms/lifecycle.js";

// Every cell: a state, `gone`, or what is said where it can't be, with the next step.
const runs = ["The VM vm-abcdefgh runs already.", "pyro vm exec vm-abcdefgh -- COMMAND"];
const notStarted = ["The VM vm-abcdefgh has not been started.", "pyro vm start vm-abcdefgh"];
const isStopped = ["The VM vm-abcdefgh is stopped.", "pyro vm start vm-abcdefgh"];
const failed = ["The VM vm-abcdefgh failed: it broke.", "pyro vm logs vm-abcdefgh may tell more. Delete it and create another one: pyro vm delete vm-abcdefgh"];
const never = ["The VM vm-abcdefgh can't have come to this.", "This is a fault of pyro."];
const neverFailed = ["The VM vm-abcdefgh can't have come to this: it broke.", "This is a fault of pyro."];
const table: Record<VmState, Record<VmEvent, string | string[]>> = {
  created: { start: "started", startFailed: "failed", use: notStarted, stop: "stopped", delete: "gone", poweredOff: never, died: never, ownerGone: never, expired: "gone" },
  started: { start: runs, startFailed: never, use: "started", stop: "stopped", delete: "gone", poweredOff: "stopped", died: "failed", ownerGone: "gone", expired: "gone" },
  stopped: { start: "started", startFailed: "stopped", use: isStopped, stop: "stopped", delete: "gone", poweredOff: never, died: never, ownerGone: never, expired: "gone" },
  failed: { start: failed, startFailed: neverFailed, use: failed, stop: failed, delete: "gone", poweredOff: neverFailed, died: neverFailed, ownerGone: neverFailed, expired: "gone" },
};

test("the table has these states and events and no others", () => {
  expect([...vmStates]).toEqual(["created", "started", "stopped", "failed"]);
  expect([...vmEvents]).toEqual(["start", "startFailed", "use", "stop", "delete", "poweredOff", "died", "ownerGone", "expired"]);
  expect(Object.keys(lifecycle)).toEqual(["created", "started", "stopped", "failed"]);
});

for (const state of vmStates) {
  for (const event of vmEvents) {
    test(`${state}, ${event}`, () => {
      const wanted = table[state][event];
      if (typeof wanted === "string") return expect(next("vm-abcdefgh", state, event, "it broke")).toBe(wanted);
      expect(() => next("vm-abcdefgh", state, event, "it broke")).toThrow(expect.objectContaining({ code: "INVALID_STATE", message: wanted[0], hint: wanted[1] }));
    });
  }
}
