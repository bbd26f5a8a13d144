// What needs no VM of templates: waiting for whoever makes one, and what is left of those who died.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { takeLock } from "../../src/base/lock.js";
import { pruneTemplates } from "../../src/core/template.js";

let cache: string;
let templates: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "pyro-template-test-"));
  process.env["XDG_CACHE_HOME"] = cache;
  templates = join(cache, "pyro-mcp", "templates");
  for (const name of ["making", "making-removed"]) {
    mkdirSync(join(templates, name), { recursive: true });
    writeFileSync(join(templates, name, "memory"), Buffer.alloc(8192, 1));
  }
});
afterEach(() => {
  vi.useRealTimers();
  delete process.env["XDG_CACHE_HOME"];
  rmSync(cache, { recursive: true });
});

test("prune removes what was never finished, and what a removal that was broken off has left", async () => {
  const { removed, reclaimedBytes } = await pruneTemplates();
  expect(removed).toEqual(["template making: it was never finished", "template making-removed: its removal was broken off"]);
  expect(reclaimedBytes).toBeGreaterThan(0); // blocks, as the file system counts them
  expect(["making", "making-removed"].filter((name) => existsSync(join(templates, name)))).toEqual([]);
});

test("whoever makes one is waited for, which is said; without end it is not, and it can be broken off", async () => {
  const maker = await takeLock(join(templates, "making.lock"));
  try {
    const waited: string[] = [];
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const pruned = pruneTemplates({ onWait: () => void (waited.push("waited"), vi.advanceTimersByTime(120_000)) });
    await expect(pruned).rejects.toMatchObject({ code: "TIMEOUT", message: "Another process was still making a template after 120 s.", hint: "Try again when it is done. VMs are booted until then." });
    expect(waited).toEqual(["waited"]);
    const broken = new AbortController();
    await expect(pruneTemplates({ signal: broken.signal, onWait: () => broken.abort() })).rejects.toMatchObject({ code: "CANCELLED" });
  } finally {
    await maker.release();
  }
});
