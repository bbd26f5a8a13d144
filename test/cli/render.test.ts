import { afterEach, expect, test, vi } from "vitest";
import { pullLine } from "../../src/cli/phases.js";
import { createOutput, formatUntil } from "../../src/cli/render.js";

afterEach(() => {
  vi.restoreAllMocks();
  for (const name of ["isTTY", "columns", "rows"] as const) Object.defineProperty(process.stderr, name, { value: undefined, configurable: true, writable: true });
});

/** What a pull writes to standard error. */
function pullIn(terminal: { isTTY: boolean; columns?: number; rows?: number }): string[] {
  for (const [name, value] of Object.entries(terminal)) Object.defineProperty(process.stderr, name, { value, configurable: true, writable: true });
  const written: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((text) => written.push(String(text)) > 0);
  const output = createOutput();
  const [a, b] = [`sha256:${"a".repeat(64)}`, `sha256:${"b".repeat(64)}`];
  const tell = (doneBytes: number, layer?: { digest: string; doneBytes: number; totalBytes: number }) => pullLine(output, "pull", { environment: "team/ci", phase: "layers", message: "fetching", elapsedMs: 0, doneBytes, totalBytes: 5000, ...(layer && { layer }) });
  tell(1000, { digest: a, doneBytes: 1000, totalBytes: 3000 });
  tell(1500, { digest: b, doneBytes: 500, totalBytes: 2000 });
  tell(3500, { digest: a, doneBytes: 3000, totalBytes: 3000 });
  pullLine(output, "pull", { environment: "team/ci", phase: "verify", message: "done", elapsedMs: 0 });
  return written;
}

test("a pull in a terminal: a line for each layer on its way, which the next one replaces, and one that stays when it is there", () => {
  const up = "\u001b[A\u001b[K";
  expect(pullIn({ isTTY: true, columns: 60, rows: 24 })).toEqual([
    '[pull] phase=layers environment=team/ci message="fetching"\n',
    "  aaaaaaaaaaaa  1.0 kB of 3.0 kB\n[pull] layers 1.0 kB of 5.0 kB team/ci",
    `\r\u001b[K${up}`,
    "  aaaaaaaaaaaa  1.0 kB of 3.0 kB\n  bbbbbbbbbbbb  500 B of 2.0 kB\n[pull] layers 1.5 kB of 5.0 kB team/ci",
    `\r\u001b[K${up}${up}`,
    `[pull] phase=layers environment=team/ci layer=sha256:${"a".repeat(64)} size="3.0 kB"\n`,
    "  bbbbbbbbbbbb  500 B of 2.0 kB\n[pull] layers 3.5 kB of 5.0 kB team/ci",
    `\r\u001b[K${up}`,
    '[pull] phase=verify environment=team/ci message="done"\n',
  ]);
  // No more lines than there is room for, and none that wraps.
  expect(pullIn({ isTTY: true, columns: 21, rows: 2 }).filter((each) => !each.endsWith("\n") && !each.startsWith("\r"))).toEqual(["[pull] layers 1.0 kB", "[pull] layers 1.5 kB", "[pull] layers 3.5 kB"]);
});

test("a pull elsewhere: a line when something is done", () => {
  expect(pullIn({ isTTY: false })).toEqual(['[pull] phase=layers environment=team/ci message="fetching"\n', `[pull] phase=layers environment=team/ci layer=sha256:${"a".repeat(64)} size="3.0 kB"\n`, '[pull] phase=verify environment=team/ci message="done"\n']);
});

test.each([
  ["2026-01-01T00:00:00.999Z", "in 0 s"],
  ["2025-12-31T23:00:00Z", "in 0 s"],
  ["2026-01-01T00:00:59Z", "in 59 s"],
  ["2026-01-01T00:01:00Z", "in 1 min"],
  ["2026-01-01T00:59:59Z", "in 59 min"],
  ["2026-01-01T01:00:00Z", "in 1 h"],
  ["2026-01-02T23:59:59Z", "in 47 h"],
  ["2026-01-08T00:00:00Z", "in 7 d"],
])("%s is %s", (time, text) => {
  expect(formatUntil(time, Date.UTC(2026, 0, 1))).toBe(text);
});
