import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connectChannel, type Channel } from "../../src/channel/index.js";

// Background jobs in the guest's real C code, under sanitizers, with two connections.
const program = new URL("../../build/guest/pyro-guest-hosted", import.meta.url).pathname;
const missing = existsSync(program) ? "" : " (skipped: no build/guest/pyro-guest-hosted; `make -C guest hosted` builds it)";
const real = test.skipIf(missing !== "");

let child: ChildProcess;
let channels: Channel[];
let complaints = "";

beforeEach(async () => {
  if (missing !== "") return;
  complaints = "";
  child = spawn(program, ["3", "4"], { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
  child.stderr!.on("data", (part: Buffer) => (complaints += part.toString().slice(0, 4096)));
  channels = await Promise.all([3, 4].map((fd) => connectChannel(child.stdio[fd] as Duplex, { deadlineMs: 120_000 })));
});

afterEach(async () => {
  if (missing !== "") return;
  // Its hosts gone it ends by itself, and every job with it.
  const exited = child.exitCode === null ? once(child, "exit") : undefined;
  for (const channel of channels) channel.close();
  await exited;
  expect([child.exitCode, complaints]).toEqual([0, ""]);
});

const sh = (script: string) => ({ argv: ["sh", "-c", script] });

real(`a job outlives its connection; whoever attaches gets what it wrote before and after, and its end${missing}`, async () => {
  const [first, second] = channels as [Channel, Channel];
  const { pid } = await first.startJob("build-1", sh("echo early; echo err >&2; read line < /dev/stdin; echo \"input: [$line]\"; while [ ! -e /proc/$PPID/nothing ] && sleep 0.05; do echo tick; done"));
  const watcher = first.attachJob("build-1");
  first.close();
  await expect(watcher.result).rejects.toMatchObject({ code: "CANCELLED" });
  const job = second.attachJob("build-1");
  expect(await job.started).toEqual({ pid });
  const seen = await new Promise<string>((resolve) => {
    let all = "";
    job.stdout.on("data", (part: Buffer) => (all += part.toString()).split("tick").length > 5 && resolve(all));
  });
  expect(seen).toMatch(/^early\ninput: \[\]\ntick\n/);
  expect(await second.listJobs()).toMatchObject([{ name: "build-1", pid, command: ["sh", "-c", expect.stringContaining("echo early") as string], stderrBytes: 4 }]);
  expect((await second.listJobs())[0]).not.toHaveProperty("end");
  await expect(second.forgetJob("build-1")).rejects.toMatchObject({ code: "INVALID_STATE" });
  job.signal(15, "process");
  expect(await job.result).toMatchObject({ exitCode: 143, signal: 15, stderrBytes: 4, stdoutDroppedBytes: 0, stderrDroppedBytes: 0 });
  expect(Buffer.concat(await job.stderr.toArray()).toString()).toBe("err\n");
  expect(await second.listJobs()).toMatchObject([{ name: "build-1", end: { exitCode: 143, signal: 15 } }]);
  await expect(second.killJob("build-1", 15, "process")).rejects.toMatchObject({ code: "INVALID_STATE" });
  await second.forgetJob("build-1");
  expect(await second.listJobs()).toEqual([]);
  for (const asked of [second.attachJob("build-1").result, second.attachJob("build-1").started, second.killJob("build-1", 9, "all"), second.forgetJob("build-1")]) {
    await expect(asked).rejects.toMatchObject({ code: "NOT_FOUND" });
  }
});

real(`what can't be started: no such command, a name that is taken, or none, a 65th${missing}`, async () => {
  const [channel] = channels as [Channel];
  await expect(channel.startJob("a", { argv: ["no-such-program"] })).rejects.toMatchObject({ code: "NOT_FOUND", message: expect.stringContaining("no-such-program: command not found") as string });
  await expect(channel.startJob("A", sh("true"))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(channel.startJob("a", { ...sh("true"), stdin: true } as never)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  expect(await channel.listJobs()).toEqual([]);
  await channel.startJob("a", sh("sleep 1000"));
  await expect(channel.startJob("a", sh("true"))).rejects.toMatchObject({ code: "EXISTS" });
  await channel.startJob("short", sh("exit 7"));
  expect(await channel.attachJob("short").result).toMatchObject({ exitCode: 7 });
  await Promise.all(Array.from({ length: 62 }, (_, at) => channel.startJob(`n${at}`, sh("sleep 1000"))));
  expect((await channel.listJobs()).map(({ name }) => name)).toEqual(["a", "short", ...Array.from({ length: 62 }, (_, at) => `n${at}`)]);
  // The one that has ended makes way; then none can.
  await channel.startJob("one-more", sh("sleep 1000"));
  expect((await channel.listJobs()).some(({ name }) => name === "short")).toBe(false);
  await expect(channel.startJob("too-many", sh("sleep 1000"))).rejects.toMatchObject({ code: "INVALID_STATE" });
  await channel.killJob("a", 9, "group");
  expect(await channel.attachJob("a").result).toMatchObject({ signal: 9 });
});

real(`nobody holds a job up: what a slow one missed is counted, and all is there for a quick one${missing}`, async () => {
  const [channel, other] = channels as [Channel, Channel];
  await channel.startJob("loud", sh("i=0; while [ $i -lt 400 ]; do i=$((i+1)); head -c 10000 /dev/zero; done; sleep 0.2; echo last"));
  const slow = other.attachJob("loud");
  const quick = channel.attachJob("loud");
  let bytes = 0;
  quick.stdout.on("data", (part: Buffer) => (bytes += part.length));
  const end = await quick.result;
  expect([end.exitCode, bytes + end.stdoutDroppedBytes, end.stdoutBytes]).toEqual([0, 4_000_005, bytes]);
  // A window's worth was sent to the slow one when there was something; the job has ended without it.
  const all = Buffer.concat(await slow.stdout.toArray());
  const slowEnd = await slow.result;
  expect([all.length, slowEnd.stdoutBytes + slowEnd.stdoutDroppedBytes]).toEqual([slowEnd.stdoutBytes, 4_000_005]);
  expect([slowEnd.stdoutDroppedBytes > 3_000_000, all.toString("latin1", all.length - 5)]).toEqual([true, "last\n"]);
  const late = channel.attachJob("loud");
  expect(Buffer.concat(await late.stdout.toArray()).length).toBe(262_144);
  expect(await late.result).toMatchObject({ stdoutBytes: 262_144, stdoutDroppedBytes: 4_000_005 - 262_144 });
});

real(`to detach ends nothing; many may be attached, and a forgotten job's end still reaches them${missing}`, async () => {
  const [channel, other] = channels as [Channel, Channel];
  await channel.startJob("j", sh("echo out; sleep 1000"));
  const attached = [channel, other, channel].map((each) => each.attachJob("j"));
  await Promise.all(attached.map(async ({ stdout }) => expect(((await once(stdout, "data")) as [Buffer])[0].toString()).toBe("out\n")));
  attached[0]!.detach();
  await expect(attached[0]!.result).rejects.toMatchObject({ code: "CANCELLED" });
  expect(await channel.listJobs()).toHaveLength(1);
  await channel.killJob("j", 9, "process");
  expect(await attached[1]!.result).toMatchObject({ signal: 9 });
  await channel.forgetJob("j");
  expect(await attached[2]!.result).toMatchObject({ signal: 9 });
  const mute = channel.attachJob("k");
  await expect(mute.result).rejects.toMatchObject({ code: "NOT_FOUND" });
});
