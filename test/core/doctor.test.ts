import { expect, test } from "vitest";
import { describeConfinement } from "../../src/core/doctor.js";
import type { ConfinementPiece } from "../../src/vmm/index.js";

const all: ConfinementPiece[] = (["privileges", "user", "namespaces", "files", "calls"] as const).map((name) => ({ name, had: true }));
const without = (missing: Partial<Record<ConfinementPiece["name"], string>>) => async () => all.map((each) => (missing[each.name] === undefined ? each : { name: each.name, had: false, why: missing[each.name]! }));

test("a host that allows all of the confinement passes", async () => {
  expect(await describeConfinement(async () => all, true)).toEqual({
    name: "confinement",
    ok: true,
    detail: "QEMU runs without privileges, as a user of its own, in namespaces of its own, without this host's files, with filtered system calls",
  });
});

test("a user of its own is expected of root only", async () => {
  expect(await describeConfinement(without({ user: "only root can give it another user" }), false)).toMatchObject({ ok: true });
  expect(await describeConfinement(without({ user: "changing the user: Invalid argument" }), true)).toMatchObject({ ok: false, detail: expect.stringContaining("not as a user of its own (changing the user: Invalid argument)") as string });
});

test("what a host forbids is said, with why and what would mend it", async () => {
  const check = await describeConfinement(without({ namespaces: "this host lets us make none", files: "it has no mount namespace" }), false);
  expect(check).toMatchObject({ ok: false, detail: "QEMU runs without privileges, with filtered system calls, not in namespaces of its own (this host lets us make none), not without this host's files (it has no mount namespace)" });
  expect(check.fix).toMatch(/^let users make namespaces/);
  expect((await describeConfinement(without({ calls: "opening files in its place: Invalid argument" }), false)).fix).toMatch(/^a kernel from 5\.12 on/);
});

test("by what this host's files are kept away is said, and what of it is missing is none the less", async () => {
  const files = (how: string) => all.map((each) => (each.name === "files" ? { ...each, how } : each));
  expect(await describeConfinement(async () => files("an empty root and Landlock 7"), true)).toMatchObject({ ok: true, detail: expect.stringContaining(", without this host's files (by an empty root and Landlock 7), with filtered system calls") as string });
  const without = files("Landlock 3").map((each) => (each.name === "namespaces" ? { name: each.name, had: false, why: "this host lets us make none" } : each));
  expect(await describeConfinement(async () => without, false)).toMatchObject({
    ok: false,
    detail: "QEMU runs without privileges, without this host's files (by Landlock 3), with filtered system calls, not in namespaces of its own (this host lets us make none)",
    fix: expect.stringMatching(/^let users make namespaces/) as string,
  });
});

test("a keeper that can't even try is no pass", async () => {
  expect(await describeConfinement(async () => Promise.reject(new Error("no keeper")), false)).toEqual({ name: "confinement", ok: false, detail: "no keeper" });
});
