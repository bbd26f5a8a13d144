import { mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { isFresh, readManifest, stampsOf, whyUnusable, type TemplateManifest } from "../../src/core/template-manifest.js";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "pyro-template-test-"));
});
afterEach(() => rm(directory, { recursive: true }));

const day = 86_400_000;
const made: TemplateManifest = { schemaVersion: 1, key: "k", host: "h", environment: "sha256:e", createdAtMs: 1000 * day, files: { memory: "1 2 3 4" } };
const now = { host: "h", environments: new Set(["sha256:e"]), timeMs: 1000 * day + 5, maxAgeMs: day };

it("reads what was written", async () => {
  await writeFile(join(directory, "manifest.json"), JSON.stringify(made));
  expect(await readManifest(directory)).toEqual(made);
});

it.each([
  ["nothing", undefined],
  ["no JSON", "{"],
  ["null", "null"],
  ["a list", "[]"],
  ["another version", JSON.stringify({ ...made, schemaVersion: 2 })],
  ["no key", JSON.stringify({ ...made, key: undefined })],
  ["a key that is a number", JSON.stringify({ ...made, key: 1 })],
  ["an age that is text", JSON.stringify({ ...made, createdAtMs: "1" })],
  ["no files", JSON.stringify({ ...made, files: null })],
  ["a stamp that is a number", JSON.stringify({ ...made, files: { memory: 1 } })],
  ["too much", `${JSON.stringify(made)}${" ".repeat(70_000)}`],
])("takes %s for no manifest", async (_what, text) => {
  if (text !== undefined) await writeFile(join(directory, "manifest.json"), text);
  expect(await readManifest(directory)).toBe(undefined);
});

it.each([
  [0, true],
  [day - 1, true],
  [day, false],
  [30 * day, false],
  [-1, false],
])("a template that is %i ms old and may be a day: fresh is %s", (ageMs, fresh) => {
  expect(isFresh(made, made.createdAtMs + ageMs, day)).toBe(fresh);
});

it("keeps what can be forked from", () => {
  expect(whyUnusable(made, "k", now)).toBe(undefined);
});

it.each([
  [undefined, "k", now, "it is damaged"],
  [made, "other", now, "it is damaged"],
  [made, "k", { ...now, host: "other" }, "its QEMU is gone or the host was booted anew"],
  [made, "k", { ...now, host: undefined }, "its QEMU is gone or the host was booted anew"],
  [made, "k", { ...now, environments: new Set<string>() }, "its environment is gone"],
  [made, "k", { ...now, timeMs: 1001 * day }, "it is too old"],
  [made, "k", { ...now, maxAgeMs: 0 }, "it is too old"],
])("says why not, case %#", (manifest, key, when, why) => {
  expect(whyUnusable(manifest, key, when)).toBe(why);
});

it("stamps all content and sees a write, a change of size and of time", async () => {
  const file = join(directory, "memory");
  await writeFile(file, "aaaa");
  await writeFile(join(directory, "lock"), "");
  await writeFile(join(directory, "manifest.json"), "{}");
  const before = await stampsOf(directory);
  expect(Object.keys(before)).toEqual(["memory"]);
  expect(await stampsOf(directory)).toEqual(before);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await writeFile(file, "aaab");
  const written = await stampsOf(directory);
  expect(written).not.toEqual(before);
  // Who sets the time of writing back does not set back the time of change.
  await utimes(file, new Date(0), new Date(0));
  expect(await stampsOf(directory)).not.toEqual(written);
  await writeFile(join(directory, "other"), "");
  expect(Object.keys(await stampsOf(directory))).toEqual(["memory", "other"]);
});
