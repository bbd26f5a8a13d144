// It comes last (vitest.config.ts): the longer it has run by then, the less there is to wait for.
import { expect, test } from "vitest";
import { outcomeOfMinutes } from "./network-minutes.js";

test("connections that are open for three minutes: idle, with a byte now and then, kept by HTTP, over TLS", { timeout: 1_200_000 }, async ({ skip }) => {
  const { why, result, records } = (await outcomeOfMinutes()) ?? { why: "it begins before all tests, and other ones were asked for" };
  if (why !== undefined) return void skip(why);
  expect(result).toMatchObject({ stdout: "idle: first\nseldom: 6\nkept: hello from www.example.com over HTTP/1.1\n.......\n", stderr: "", status: 0 });
  // Four connections, each of them one and the same all the time.
  const ofType = (wanted: string) => records!.filter(({ type }) => type === wanted);
  expect(ofType("connect").map(({ port }) => port).sort()).toEqual([443, 7, 7, 80]);
  expect(ofType("close").map(({ port }) => port).sort()).toEqual([443, 7, 7, 80]);
  for (const wanted of [7, 80, 443]) {
    const times = (type: string) => ofType(type).flatMap(({ port, time }) => (port === wanted ? [Date.parse(time)] : []));
    expect([wanted, (Math.min(...times("close")) - Math.max(...times("connect"))) / 1000 > 180]).toEqual([wanted, true]);
  }
});
