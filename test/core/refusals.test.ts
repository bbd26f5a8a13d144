import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { watchRefusals, type Refusal } from "../../src/core/refusals.js";
import type { GatewayControl } from "../../src/net/index.js";

/** What a watch needs of a gateway. */
class StandIn extends EventEmitter {
  listened = 0;
  released = 0;
  listen = async () => void this.listened++;
  info = async () => {
    // Told before it answers.
    this.emit("event", { event: "refused", time: "", type: "refused", protocol: "tcp", address: "10.0.0.9", port: 9, rule: "last", reason: "at the end" });
    return { last_refusals: this.last };
  };
  last: object[] = [];
  open = async () => ({ control: this as unknown as GatewayControl, release: () => void this.released++ });
  refuse(number: number, rule = "private 10.0.0.0/8"): void {
    this.emit("event", { event: "refused", time: "", type: "refused", protocol: "tcp", address: "10.0.0.1", port: number, rule, reason: `port ${number}` });
  }
}

test("what was refused is told once each, in order, with what comes at the very end; nothing else is", async () => {
  const gateway = new StandIn();
  const told: Refusal[] = [];
  const watch = watchRefusals(gateway.open(), (refusal) => told.push(refusal));
  await new Promise(setImmediate);
  gateway.refuse(80);
  gateway.refuse(80);
  gateway.emit("event", { event: "connect", type: "connect", protocol: "tcp", address: "93.184.216.34", port: 80 });
  gateway.refuse(81);
  const all = await watch.end();
  expect(all.map(({ port }) => port)).toEqual([80, 81, 9]);
  expect(told).toEqual(all);
  expect(all[0]).toEqual({ rule: "private 10.0.0.0/8", reason: "port 80", protocol: "tcp", address: "10.0.0.1", port: 80 });
  expect([gateway.listened, gateway.released, gateway.listenerCount("event")]).toEqual([1, 1, 0]);
});

test("what was refused before anybody listened is found at the end, and what was refused before that is not", async () => {
  const gateway = new StandIn();
  const refused = (port: number, ms: number) => ({ time: new Date(Date.now() + ms).toISOString(), type: "refused", protocol: "tcp", address: "10.0.0.1", port, rule: "private 10.0.0.0/8", reason: `port ${port}` });
  const before = refused(79, -60_000);
  const told: Refusal[] = [];
  const watch = watchRefusals(gateway.open(), (refusal) => told.push(refusal));
  await new Promise(setImmediate);
  gateway.refuse(81);
  gateway.last = [before, refused(80, 0), refused(81, 0), { ...refused(82, 0), time: "no time" }];
  const all = await watch.end();
  expect(all.map(({ port }) => port)).toEqual([81, 9, 80]);
  expect(told).toEqual(all);
});

test("no more than 32 are kept", async () => {
  const gateway = new StandIn();
  const watch = watchRefusals(gateway.open());
  await new Promise(setImmediate);
  for (let port = 0; port < 1000; port++) gateway.refuse(port);
  expect(await watch.end()).toHaveLength(32);
});

test("a gateway that is gone is told, one that is not ready yet is not waited for", async () => {
  const told: Refusal[] = [];
  const gone = watchRefusals(Promise.reject(new PyroError("VMM_EXITED", "The VM's network gateway ended.")), (refusal) => told.push(refusal));
  expect(await gone.end()).toEqual([{ rule: "gateway", reason: "The VM's network gateway ended.", protocol: "any" }]);
  expect(told).toHaveLength(1);
  const gateway = new StandIn();
  let open: (opened: Awaited<ReturnType<StandIn["open"]>>) => void = () => {};
  const late = watchRefusals(new Promise((resolve) => (open = resolve)), undefined, () => false);
  expect(await late.end()).toEqual([]);
  open(await gateway.open());
  await new Promise(setImmediate);
  expect(gateway.released).toBe(1);
});
