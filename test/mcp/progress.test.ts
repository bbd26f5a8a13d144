// What a client that waits is told, and how often, on a clock of the test's own.
import type { ServerContext } from "@modelcontextprotocol/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { startProgress } from "../../src/mcp/progress.js";

interface Told {
  atMs: number;
  progress: number;
  message: string;
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function client(signal: AbortSignal = new AbortController().signal, _meta: object = { progressToken: 7 }): { ctx: ServerContext; told: Told[] } {
  const told: Told[] = [];
  const begin = performance.now();
  const notify = async ({ method, params }: { method: string; params: { progressToken: number; progress: number; message: string } }) => {
    expect([method, params.progressToken]).toEqual(["notifications/progress", 7]);
    told.push({ atMs: performance.now() - begin, progress: params.progress, message: params.message });
  };
  return { ctx: { mcpReq: { _meta, signal, notify } } as unknown as ServerContext, told };
}

test("it is never silent for two seconds, and says what lasts for how long", () => {
  const { ctx, told } = client();
  const progress = startProgress(ctx);
  vi.advanceTimersByTime(700);
  progress.phase({ phase: "start", accelerator: "tcg" });
  vi.advanceTimersByTime(9000);
  progress.say("running the command");
  vi.advanceTimersByTime(20_000);
  const moments = [0, ...told.map(({ atMs }) => atMs), 29_700];
  expect(moments.slice(1).every((moment, index) => moment - moments[index]! <= 2000)).toBe(true);
  expect(told.every(({ progress: each }, index) => index === 0 || each > told[index - 1]!.progress)).toBe(true);
  expect(told[0]).toEqual({ atMs: 700, progress: 0.7, message: "starting the VM" });
  expect(told.find(({ atMs }) => atMs === 9700)).toEqual({ atMs: 9700, progress: 9.7, message: "running the command" });
  expect(told.at(-1)!.message).toMatch(/^running the command \((18|19|20) s\)$/);
});

test("after the end, and to who has cancelled or did not ask, nothing is told", () => {
  const { ctx, told } = client();
  const progress = startProgress(ctx);
  progress.end();
  progress.say("too late");
  const abort = new AbortController();
  const cancelled = client(abort.signal);
  const other = startProgress(cancelled.ctx);
  abort.abort();
  other.say("too late");
  const silent = client(undefined, {});
  startProgress(silent.ctx).say("to nobody");
  vi.advanceTimersByTime(10_000);
  other.end();
  expect([told, cancelled.told, silent.told]).toEqual([[], [], []]);
});
