import { expect, test } from "vitest";
import { Slots } from "../../src/mcp/slots.js";
import { seeded } from "../environments/fixtures.js";

test("more calls than may wait are refused, of whichever kind they are", async () => {
  const slots = new Slots(1, 1);
  let done = () => {};
  const { signal } = new AbortController();
  const first = slots.use(signal, () => {}, () => new Promise<void>((resolve) => (done = resolve)));
  const second = slots.use(signal, () => {}, async () => "second");
  await expect(slots.use(signal, () => {}, async () => "third")).rejects.toMatchObject({ code: "DENIED", message: "1 calls are at work and 1 wait for their turn; that is as many as this server takes." });
  done();
  await first;
  expect(await second).toBe("second");
});

test("hundreds of calls that are cancelled whenever: no slot is lost, and none is there twice", async () => {
  const random = seeded(9);
  const slots = new Slots(3, 1000);
  let [working, most] = [0, 0];
  const calls = Array.from({ length: 500 }, () => {
    const controller = new AbortController();
    const call = slots.use(controller.signal, () => {}, async () => {
      most = Math.max(most, ++working);
      for (let turns = random(4); turns > 0; turns--) await new Promise(setImmediate);
      working--;
    });
    return { controller, ended: call.catch((error: unknown) => expect(error).toMatchObject({ code: "CANCELLED" })) };
  });
  for (let round = 0; round < 300; round++) {
    calls[random(calls.length)]!.controller.abort();
    if (round % 3 === 0) await new Promise(setImmediate);
  }
  await Promise.all(calls.map(({ ended }) => ended));
  expect([working, most]).toEqual([0, 3]);
  expect(await Promise.all([1, 2, 3, 4].map((each) => slots.use(new AbortController().signal, () => {}, async () => each)))).toEqual([1, 2, 3, 4]);
});
