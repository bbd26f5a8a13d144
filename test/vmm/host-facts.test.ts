import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { runChild } from "../../src/base/child.js";
import { readFact, writeFact } from "../../src/vmm/host-facts.js";
import { parseCpuMs } from "../../src/vmm/process-time.js";
import { openAndUnlink, openUnnamed } from "../../src/vmm/unnamed-file.js";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "pyro-facts-test-"));
  vi.stubEnv("XDG_CACHE_HOME", directory);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

it("gives back what was kept, under the same key only", async () => {
  expect(await readFact("tsc", "boot 1")).toBe(undefined);
  await writeFact("tsc", "boot 1", 2_596_134);
  expect(await readFact("tsc", "boot 1")).toBe(2_596_134);
  expect(await readFact("tsc", "boot 2")).toBe(undefined);
});

it.each(["", "nonsense", "null", "[]", "7", '{"key":', `{"key":"k","value":"${"x".repeat(20_000)}"}`])("takes a damaged file as none: %.20j", async (text) => {
  await mkdir(join(directory, "pyro-mcp/host"), { recursive: true });
  await writeFile(join(directory, "pyro-mcp/host/tsc.json"), text);
  expect(await readFact("tsc", "k")).toBe(undefined);
});

it("takes a FIFO as none, and replaces it", async () => {
  await mkdir(join(directory, "pyro-mcp/host"), { recursive: true });
  expect((await runChild("mkfifo", [join(directory, "pyro-mcp/host/tsc.json")])).code).toBe(0);
  expect(await readFact("tsc", "k")).toBe(undefined);
  await writeFact("tsc", "k", 1);
  expect(await readFact("tsc", "k")).toBe(1);
});

it("fails at nothing when there is nowhere to write", async () => {
  await writeFile(join(directory, "file"), "");
  vi.stubEnv("XDG_CACHE_HOME", join(directory, "file"));
  await writeFact("tsc", "k", 1);
  expect(await readFact("tsc", "k")).toBe(undefined);
});

it("reads processor times of a process with any name", () => {
  expect(parseCpuMs("77 (a) b (c 9 9) S 1 77 77 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 1 0 100 200 300")).toBe(1750);
});

it.each([["without a name from the start", openUnnamed], ["unlinked at once", openAndUnlink]])("opens a file to read and write, %s", async (_, openFile) => {
  const { readdir } = await import("node:fs/promises");
  const file = await openFile(directory);
  try {
    await file.write(Buffer.from("abc"), 0, 3, 0);
    const { buffer } = await file.read(Buffer.alloc(3), 0, 3, 0);
    expect(buffer.toString()).toBe("abc");
    expect(await readdir(directory)).toEqual([]);
  } finally {
    await file.close();
  }
});
