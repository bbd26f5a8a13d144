import { Duplex } from "node:stream";
import { afterEach, expect, it, vi } from "vitest";
import { Qmp, maxLineBytes } from "../../src/vmm/qmp.js";

afterEach(() => void vi.useRealTimers());

/** A QEMU that answers as it is told to. */
function fake(): { stream: Duplex; sent: string[]; say: (text: string) => void } {
  const sent: string[] = [];
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _, done) {
      sent.push(...chunk.toString().trim().split("\n"));
      done();
    },
  });
  return { stream, sent, say: (text) => void stream.push(text) };
}

const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n';

it("negotiates without waiting, and matches answers to commands", async () => {
  const { stream, sent, say } = fake();
  const qmp = new Qmp(stream);
  const first = qmp.execute("query-status");
  const second = qmp.execute("stop", { x: 1 });
  expect(sent.map((line) => JSON.parse(line) as unknown)).toEqual([
    { execute: "qmp_capabilities", arguments: {}, id: 1 },
    { execute: "query-status", arguments: {}, id: 2 },
    { execute: "stop", arguments: { x: 1 }, id: 3 },
  ]);
  for (const character of `${greeting}{"return": {}, "id": 1}\r\n{"return": "b", "id": 3}\r\n{"return": "a", "id": 2}\r\n`) say(character);
  expect(await first).toBe("a");
  expect(await second).toBe("b");
});

it("waits for an answer for seconds, and where somebody else looks at what it does, for as long as that may be", async () => {
  vi.useFakeTimers();
  const { stream, say } = fake();
  const qmp = new Qmp(stream);
  const ordered = qmp.order("migrate-incoming", { uri: "fd:9" });
  const executed = qmp.execute("query-status");
  vi.advanceTimersByTime(3_600_000);
  await expect(executed).rejects.toMatchObject({ code: "TIMEOUT", message: "QEMU's answer to query-status did not happen within 10 s." });
  say('{"return": {}, "id": 2}\n');
  expect(await ordered).toEqual({});
});

it("hands on events", async () => {
  const { stream, say } = fake();
  const events: unknown[] = [];
  const qmp = new Qmp(stream, (name, data) => events.push([name, data]));
  say(`${greeting}{"event": "SHUTDOWN", "data": {"guest": true}}\n{"event": "RESUME"}\n{"return": 1, "id": 2}\n`);
  await qmp.execute("query-status");
  expect(events).toEqual([["SHUTDOWN", { guest: true }], ["RESUME", {}]]);
});

it("says why QEMU refused a command", async () => {
  const { stream, say } = fake();
  const qmp = new Qmp(stream);
  const answer = qmp.execute("nonsense");
  say('{"id": 2, "error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}}\n');
  await expect(answer).rejects.toMatchObject({ code: "INTERNAL", message: "QEMU refused a command: The command nonsense has not been found" });
});

it.each([
  ["no JSON", "hello\n", /not JSON/],
  ["no object", "[1]\n", /not an object/],
  ["null", "null\n", /not an object/],
  ["an answer nobody asked for", '{"return": {}, "id": 77}\n', /nothing that was asked/],
  ["an answer without an id", '{"return": {}}\n', /nothing that was asked/],
  ["deep nesting", `{"return": ${"[".repeat(5000)}${"]".repeat(5000)}, "id": 2}\n`, /deeper than 32/],
  ["a line without an end", "x".repeat(maxLineBytes + 1), /more than 1048576 bytes/],
])("ends the connection on %s", async (_, text, message) => {
  const { stream, say } = fake();
  const qmp = new Qmp(stream);
  const answer = qmp.execute("query-status");
  say(text);
  await expect(answer).rejects.toMatchObject({ code: "PROTOCOL", message: expect.stringMatching(message) as string });
  expect(stream.destroyed).toBe(true);
  await expect(qmp.execute("stop")).rejects.toMatchObject({ code: "PROTOCOL" });
});

it("rejects what waits when QEMU goes away, and what waits too long", async () => {
  const { stream } = fake();
  const qmp = new Qmp(stream);
  await expect(qmp.execute("stop", {}, { timeoutMs: 10 })).rejects.toMatchObject({ code: "TIMEOUT" });
  const answer = qmp.execute("query-status");
  stream.destroy();
  await expect(answer).rejects.toMatchObject({ code: "VMM_EXITED" });
});

it("settles every command, whatever comes", async () => {
  let seed = 7;
  const random = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) >>> 16;
  const pieces = ['{"return":', '"id":', "1", "2", "}", "{", "[", "]", "\n", '"', "\\", ",", '{"event":"X"}', "\u0000", "é", greeting];
  for (let round = 0; round < 300; round++) {
    const { stream, say } = fake();
    const answer = new Qmp(stream).execute("query-status").then(() => "answered", () => "rejected");
    for (let n = random() % 40; n > 0; n--) say(pieces[random() % pieces.length]!);
    stream.push(null);
    stream.destroy();
    expect(["answered", "rejected"]).toContain(await answer);
  }
});
