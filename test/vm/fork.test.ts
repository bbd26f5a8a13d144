// Forks of a frozen VM, for real: each is itself, shares nothing that it changes, and whatever is wrong with a template costs a boot and no result.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Channel } from "../../src/channel/index.js";
import { introduce } from "../../src/core/introduce.js";
import { startVm, type Phase } from "../../src/core/start.js";
import { openEnvironment } from "../../src/environments/index.js";
import { forking } from "../../src/vmm/index.js";
import { main } from "../built.js";
import { copyCache } from "./cache.js";
import { text, useGuests } from "./guest.js";
import { collect, eventually, leftovers, processesWith, pyro, startPyro, type PyroResult } from "./pyro.js";

const environment = "debian:12";
/** 200 take four minutes on two cores: for whoever changes what they are about. */
const killRounds = Number(process.env["PYRO_KILL_ROUNDS"] ?? 60);
/** A cache of its own with a copy of the environments of the other tests: what is done to templates here is nobody else's. */
let cache: string;
let templates: string;
let env: Record<string, string>;

const guests = useGuests();

beforeAll(() => {
  cache = mkdtempSync(join(tmpdir(), "pyro-fork-test-"));
  copyCache(cache);
  templates = join(cache, "pyro-mcp", "templates");
  env = { XDG_CACHE_HOME: cache };
});
afterAll(async () => {
  await eventually(() => processesWith(cache).length === 0); // the last one's keeper is still at it for a moment
  expect(processesWith(cache)).toEqual([]);
  rmSync(cache, { recursive: true, force: true });
});

interface Json {
  exit_code: number;
  stdout: string;
  boot_ms: number;
  vm_id: string;
}

async function run(script: string, more: Record<string, string> = {}, flags: readonly string[] = []): Promise<Json> {
  const result = await pyro(["run", environment, "--json", ...flags, "--", "sh", "-c", script], { env: { ...env, ...more } });
  if (result.status !== 0) throw new Error(`status ${result.status}: ${result.stderr}`);
  return JSON.parse(result.stdout) as Json;
}

/** The run's own lines, with the log: whether it made a template, forked or booted. */
async function trace(more: Record<string, string> = {}): Promise<string> {
  const result = await pyro(["run", environment, "--", "true"], { env: { ...env, PYRO_LOG: "debug", ...more } });
  expect(result.status).toBe(0);
  return result.stderr;
}

const keys = () => (existsSync(templates) ? readdirSync(templates) : []).filter((name) => /^[0-9a-f]{64}$/.test(name));
const file = (name: string) => join(templates, keys()[0]!, name);

/** When a template's files were last written to or got holes. Not how many blocks they have: those grow by the file system's own when it writes them back. */
const changed = () => ["memory", "scratch", "device-state"].map((name) => [file(name), statSync(file(name)).mtimeMs, statSync(file(name)).ctimeMs]);

test("ten at once on a cold cache make one template; the others wait for it and say so", async () => {
  const children = Array.from({ length: 10 }, () => startPyro(["run", environment, "--", "hostname"], env));
  const said = children.map((child) => {
    const all = { text: "" };
    child.stderr!.on("data", (chunk: Buffer) => (all.text += chunk.toString()));
    return all;
  });
  const ends = children.map((child) => collect(child));
  // Whoever makes it is held up until the last of the others has come to wait for it.
  const maker = () => said.findIndex(({ text }) => text.includes("phase=template"));
  expect(await eventually(() => maker() >= 0)).toBe(true);
  children[maker()]!.kill("SIGSTOP");
  const waiting = () => said.filter(({ text }) => !text.includes("phase=template") && text.includes("phase=waiting"));
  await eventually(() => waiting().length === 9);
  children[maker()]!.kill("SIGCONT");
  const results = await Promise.all(ends);
  expect(results.map((each) => each.status)).toEqual(Array.from({ length: 10 }, () => 0));
  expect(results.filter((each) => each.stderr.includes("phase=template"))).toHaveLength(1);
  // Whoever makes it may have waited as well, for the empty scratch disk that another one had just begun.
  expect(results.filter((each) => !each.stderr.includes("phase=template") && each.stderr.includes("phase=waiting"))).toHaveLength(9);
  expect(new Set(results.map((each) => each.stdout)).size).toBe(10);
  expect(keys()).toHaveLength(1);
  expect(readdirSync(join(templates, keys()[0]!)).sort()).toEqual(["device-state", "lock", "manifest.json", "memory", "scratch"]);
  expect(statSync(join(templates, keys()[0]!)).mode & 0o777).toBe(0o700);
  expect(await trace()).not.toContain("phase=template");
});

test("two forks share no randomness, name, machine id or boot id, from whatever they get them", async () => {
  const script = [
    "head -c 16 /dev/urandom | od -An -tx1",
    "head -c 16 /dev/random | od -An -tx1",
    "perl -e 'my $b = \"\\0\" x 16; syscall(318, $b, 16, 0); print unpack(\"H*\", $b), \"\\n\"'", // getrandom(2) on x86_64
    "cat /proc/sys/kernel/random/uuid",
    "cat /proc/sys/kernel/random/boot_id",
    "cat /etc/machine-id",
    "hostname",
    "openssl rand -hex 16",
    "mktemp -u",
    // A program's stack protector and pointer guard: AT_RANDOM (25) of its auxiliary vector points to 16 bytes of the kernel's.
    "perl -e 'open my $a, \"<\", \"/proc/self/auxv\"; read $a, my $b, 4096; my %v = unpack(\"Q*\", $b); open my $m, \"<\", \"/proc/self/mem\"; seek $m, $v{25}, 0; read $m, $b, 16; print unpack(\"H*\", $b), \"\\n\"'",
  ].join("; ");
  const forks = await Promise.all([run(script), run(script), run(script)]);
  const lines = forks.map((each) => each.stdout.trim().split("\n").map((line) => line.trim()));
  expect(lines.map((each) => each.length)).toEqual([10, 10, 10]);
  for (let index = 0; index < 10; index++) expect(new Set(lines.map((each) => each[index]))).toHaveProperty("size", 3);
  expect(lines.map((each) => each[6])).toEqual(forks.map((each) => each.vm_id));
});

test("a fork has the host's time, also after hours", async () => {
  const check = async () => {
    const child = startPyro(["run", environment, "--quiet", "--", "date", "+%s.%N"], env);
    let arrivedMs = 0;
    const beginMs = Date.now();
    child.stdout!.on("data", () => (arrivedMs = Date.now()));
    const guestMs = Number((await collect(child)).stdout) * 1000;
    // Read between the run's begin and the answer's arrival; the clock's own error comes on top.
    expect(guestMs).toBeGreaterThan(beginMs - 200);
    expect(guestMs).toBeLessThan(arrivedMs + 200);
  };
  await check();
  // The same as a clock that has gone on: the template says nothing of what time it is.
  const manifest = JSON.parse(readFileSync(file("manifest.json"), "utf8")) as { createdAtMs: number };
  writeFileSync(file("manifest.json"), JSON.stringify({ ...manifest, createdAtMs: Date.now() - 23 * 3600_000 }));
  await check();
});

test("a fork has the host's time, also from a template whose clock stands a month back", async () => {
  const directory = guests.path("template");
  mkdirSync(directory);
  const spec = guests.specOf();
  const secondsOf = async (channel: Channel) => Number(await text(channel, { argv: ["date", "+%s.%N"] }));
  const template = await forking!.startTemplate(spec, guests.accelerator(), directory);
  try {
    const channel = await guests.hello(template);
    await text(channel, { argv: ["date", "-s", `@${Math.floor(Date.now() / 1000) - 30 * 86_400}`] });
    await template.freeze();
  } finally {
    await template.end();
  }
  const fork = await forking!.fork(spec, guests.accelerator(), directory);
  try {
    const channel = await guests.hello(fork);
    // So it would be, if nobody told it.
    expect(await secondsOf(channel)).toBeLessThan(Date.now() / 1000 - 29 * 86_400);
    const begin = Date.now() / 1000;
    await introduce(channel, { vmId: "vm-month", hostname: "vm-month", machineId: "0123456789abcdef0123456789abcdef" }, AbortSignal.timeout(60_000));
    expect(await secondsOf(channel)).toBeGreaterThan(begin - 0.2);
    // A host that is busy without end may have told it late each time.
    for (let clockMs = 0; Date.now() - clockMs > 100; ) clockMs = Number((await channel.setClock()).clockNs / 1_000_000n);
    for (let read = 0; read < 3; read++) {
      const before = Date.now() / 1000;
      const guest = await secondsOf(channel);
      const after = Date.now() / 1000;
      expect(guest).toBeGreaterThan(before - 0.2);
      expect(guest).toBeLessThan(after + 0.2);
    }
  } finally {
    await fork.end();
  }
});

test("what one fork writes, no other sees, and the template stays as it is", async () => {
  const before = changed();
  const write = "echo mine > /root/mine; echo changed >> /etc/profile; dd if=/dev/urandom of=/var/big bs=1M count=64 2>/dev/null; rm /usr/bin/env; sync; echo 3 > /proc/sys/vm/drop_caches; ls /root; wc -c < /var/big";
  expect((await run(write)).stdout).toBe("mine\n67108864\n");
  expect((await run("ls /root /var/big 2>/dev/null; grep -c changed /etc/profile; ls /usr/bin/env")).stdout).toBe("0\n/usr/bin/env\n".replace(/^/, "/root:\n"));
  const [a, b] = await Promise.all([run("echo a > /root/x; sleep 1; cat /root/x"), run("echo b > /root/x; sleep 1; cat /root/x")]);
  expect([a.stdout, b.stdout]).toEqual(["a\n", "b\n"]);
  expect(changed()).toEqual(before);
});

// Virtio device ids (Virtual I/O Device specification, section 5): 1 network, 2 block, 3 console, 5 balloon.
const devices = "cat /sys/bus/virtio/devices/*/device | sort -u";

test("memory that a command had goes back to the host, and out of no template", async () => {
  const before = changed();
  const id = (await pyro(["vm", "create", environment, "--ttl-seconds", "6000"], { env })).stdout.trim();
  try {
    expect((await pyro(["vm", "start", id], { env })).status).toBe(0);
    const exec = async (script: string) => (await pyro(["vm", "exec", id, "--quiet", "--", "sh", "-c", script], { env })).stdout;
    expect(await exec(`${devices}; head -c 20M /dev/zero >/root/f; dd if=/dev/zero of=/dev/null bs=300M count=1 status=none`)).toBe("0x0001\n0x0002\n0x0003\n0x0005\n");
    // The kernel tells of what is free every two seconds, part by part.
    const memoryMb = async () => (JSON.parse((await pyro(["vm", "stats", id, "--json"], { env })).stdout) as { host: { memory_bytes: number } }).host.memory_bytes / 1e6;
    for (let tries = 0; tries < 900 && (await memoryMb()) > 200; tries++) await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(await memoryMb()).toBeLessThan(200);
    expect(await exec("sha256sum </root/f; grep -c ^virtio_balloon /proc/modules")).toBe("cd52d81e25f372e6fa4db2c0dfceb59862c1969cab17096da352b34950c973cc  -\n1\n");
  } finally {
    await pyro(["vm", "delete", id], { env });
  }
  expect(changed()).toEqual(before);
  expect(await trace()).not.toContain("phase=template");
});

test("on a host where a template's memory can't be kept from holes, its forks have nothing to make them by", async () => {
  const without = join(cache, "without");
  execFileSync("cc", ["-std=gnu11", "-static", "-o", without, join(import.meta.dirname, "../vmm/takeover.c")]);
  const there = (...args: string[]) => collect(spawn(without, ["without-questions", process.execPath, main, "run", environment, "--", ...args], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env, PYRO_LOG: "debug" } }));
  const fact = join(cache, "pyro-mcp", "host", "confinement.json");
  const fork = await there("sh", "-c", devices); // what is remembered was found out elsewhere
  expect([fork.status, fork.stdout]).toEqual([0, "0x0001\n0x0002\n0x0003\n"]);
  expect(fork.stderr).not.toContain("did not work");
  // What is remembered is wrong: a boot instead.
  writeFileSync(fact, readFileSync(fact, "utf8").replace("false", "true"));
  const unsealed = await there("sh", "-c", devices);
  expect([unsealed.status, unsealed.stderr.includes("a template did not work")]).toEqual([0, true]);
  rmSync(fact);
  rmSync(templates, { recursive: true });
  await trace();
});

test("another size has another template; env warm makes it ahead", async () => {
  const warm = await pyro(["env", "warm", environment, "--vcpu-count", "2", "--mem-mib", "256"], { env });
  expect(warm.status).toBe(0);
  expect(warm.stderr).toContain("phase=template");
  expect(keys()).toHaveLength(2);
  const again = await pyro(["env", "warm", environment, "--vcpu-count", "2", "--mem-mib", "256", "--json"], { env });
  expect(JSON.parse(again.stdout)).toMatchObject({ environment, vcpu_count: 2, mem_mib: 256, made: false });
  const result = await pyro(["run", environment, "--vcpu-count", "2", "--mem-mib", "256", "--", "nproc"], { env });
  expect(result.stdout).toBe("2\n");
  expect(result.stderr).not.toContain("phase=template");
});

const damages: [string, () => void][] = [
  ["memory written to", () => overwrite("memory")],
  ["device state written to", () => overwrite("device-state")],
  ["memory cut off", () => truncateSync(file("memory"), 4096)],
  ["a manifest that is none", () => writeFileSync(file("manifest.json"), "{")],
  ["device state gone", () => rmSync(file("device-state"))],
];
test.each(damages)("damage that shows: %s; the template is made anew", async (_what, damage) => {
  await leaveOne();
  damage();
  expect(await trace()).toContain("phase=template");
  expect(await trace()).not.toContain("phase=template");
});

const hidden: [string, () => void][] = [
  ["device state", () => writeFileSync(file("device-state"), Buffer.alloc(70_000, 7))],
  ["device state, cut off", () => truncateSync(file("device-state"), 20_000)],
  ["scratch disk", () => writeFileSync(file("scratch"), Buffer.alloc(65_536))],
];
test.each(hidden)("damage that only the fork finds: %s; one boot instead, then a new template", async (_what, damage) => {
  await leaveOne();
  damage();
  restamp();
  const fallback = await trace();
  expect(fallback).toContain("a template did not work");
  expect(fallback).not.toContain("phase=template");
  expect(await trace()).toContain("phase=template");
});

test("a fork whose monitor is killed, as where memory runs out, costs a boot and no template", async () => {
  await leaveOne();
  const before = readFileSync(file("manifest.json"), "utf8");
  let killed = false;
  const fork = vi.spyOn(forking!, "fork").mockImplementationOnce(async (...args) => {
    fork.mockRestore();
    const vm = await forking!.fork(...args);
    const monitor = () => readFileSync(`/proc/${vm.pid}/task/${vm.pid}/children`, "latin1").trim();
    expect(await eventually(() => monitor() !== "")).toBe(true);
    killed = process.kill(Number(monitor()), "SIGKILL");
    return vm;
  });
  const kept = process.env["XDG_CACHE_HOME"];
  process.env["XDG_CACHE_HOME"] = cache;
  try {
    const vm = await startVm({ environment, vcpuCount: 1, memMib: 1024, ttlSeconds: 200 });
    await vm.end();
  } finally {
    if (kept === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = kept;
  }
  expect(killed).toBe(true);
  expect(readFileSync(file("manifest.json"), "utf8")).toBe(before);
});

test("a template that can't be made costs a boot and no result", async () => {
  rmSync(templates, { recursive: true, force: true });
  writeFileSync(templates, "");
  try {
    const output = await trace();
    expect(output).toContain("no template");
    expect(output).toContain("exit_code=0");
  } finally {
    rmSync(templates);
  }
});

test("an environment that is pruned while a fork begins is said to be gone", async () => {
  await trace();
  const kept = process.env["XDG_CACHE_HOME"];
  process.env["XDG_CACHE_HOME"] = cache;
  const { lockFile } = (await openEnvironment(environment))!;
  try {
    for (const taken of [dirname(lockFile), lockFile]) {
      const onPhase = ({ phase }: Phase) => void (phase === "start" && renameSync(taken, `${taken}-aside`));
      const failure: unknown = await startVm({ environment, vcpuCount: 1, memMib: 1024, ttlSeconds: 60 }, { onPhase }).catch((error: unknown) => error);
      renameSync(`${taken}-aside`, taken);
      expect(failure).toMatchObject({ code: "ENVIRONMENT_INVALID", message: "The environment debian:12 was removed meanwhile.", hint: "pyro env pull debian:12" });
    }
  } finally {
    if (kept === undefined) delete process.env["XDG_CACHE_HOME"];
    else process.env["XDG_CACHE_HOME"] = kept;
  }
  expect(await trace()).toContain("exit_code=0");
});

test("none is made or used where the setting says so", async () => {
  expect(await trace({ PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" })).not.toContain("template");
  const warm = await pyro(["env", "warm", environment], { env: { ...env, PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" } });
  expect(warm.status).toBe(1);
  expect(warm.stderr).toContain("not forked here");
});

test("an old one is made anew, and prune removes what can't be used", async () => {
  await trace();
  // Of another boot of the host, say, so that nobody would ever ask for them again: one of the day before yesterday, one of today.
  const stray = (digit: string, ageMs: number) => {
    const key = digit.repeat(64);
    mkdirSync(join(templates, key));
    for (const name of ["lock", "memory"]) writeFileSync(join(templates, key, name), "");
    writeFileSync(join(templates, key, "manifest.json"), JSON.stringify({ schemaVersion: 1, key, host: "another boot", environment: "sha256:0", createdAtMs: Date.now() - ageMs, files: {} }));
    return key;
  };
  const [old, fresh] = [stray("0", 2 * 86_400_000), stray("1", 3_600_000)];
  await new Promise((resolve) => setTimeout(resolve, 1100));
  expect(await trace({ PYRO_TEMPLATE_MAX_AGE_SECONDS: "1" })).toContain("phase=template");
  expect([keys().includes(old), keys().includes(fresh)]).toEqual([false, true]);
  rmSync(join(templates, fresh), { recursive: true });
  await pyro(["env", "warm", environment, "--mem-mib", "256"], { env });
  expect(keys()).toHaveLength(2);
  const prune = async (more: Record<string, string> = {}) => JSON.parse((await pyro(["env", "prune", "--json"], { env: { ...env, ...more } })).stdout) as { removed: string[]; reclaimed_bytes: number };
  expect((await prune()).removed).toEqual([]);
  // One in use stays, and there is no keeper any more that still is at its end.
  expect(await eventually(() => processesWith(cache).length === 0)).toBe(true);
  const holder = startPyro(["run", environment, "--", "sh", "-c", "echo ready; sleep 100"], env);
  await new Promise((resolve) => holder.stdout!.once("data", resolve));
  const pruned = await prune({ PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" });
  expect(pruned.removed).toEqual([expect.stringMatching(/^template [0-9a-f]{16}: it is too old$/)]);
  expect(pruned.reclaimed_bytes).toBeGreaterThan(10_000_000);
  expect(keys()).toHaveLength(1);
  holder.kill("SIGKILL");
  await collect(holder);
  expect(await eventually(() => processesWith(cache).length === 0)).toBe(true);
  // Another QEMU: all that was made with the first one is useless.
  const other = join(cache, "qemu-system-x86_64");
  execFileSync("cp", [execFileSync("which", ["qemu-system-x86_64"]).toString().trim(), other]);
  expect((await prune({ PYRO_QEMU: other })).removed).toEqual([expect.stringMatching(/its QEMU is gone/)]);
  rmSync(other);
  expect(keys()).toEqual([]);
});

test("32 at once all answer", async () => {
  await trace();
  const results = await Promise.all(Array.from({ length: 32 }, (_, index) => pyro(["run", environment, "--quiet", "--", "sh", "-c", `echo ${index} $(hostname)`], { env })));
  expect(results.map((each) => [each.status, each.stdout.split(" ")[0], each.stderr])).toEqual(Array.from({ length: 32 }, (_, index) => [0, String(index), ""]));
  expect(new Set(results.map((each) => each.stdout.split(" ")[1])).size).toBe(32);
});

test(`killed at any moment, ${killRounds} times: no wrong result, no orphan, and no template that later fails`, { timeout: 3_600_000 }, async () => {
  // Lanes side by side, each with a cache of its own, as what one does to its templates must not excuse another.
  const lanes = await Promise.all(Array.from({ length: 3 }, (_, index) => Lane.open(index)));
  let rounds = 0;
  const sum = () => {
    const counts = { rounds: 0, maker: 0, makersQemu: 0, whileAnotherWaited: 0, pyro: 0, forksQemu: 0 };
    for (const lane of lanes) for (const key of Object.keys(counts) as (keyof typeof counts)[]) counts[key] += lane.counts[key];
    return counts;
  };
  /** Chance, and a host that is faster or slower than it was, may leave something out: then there are more rounds. */
  const isMissing = () => {
    const counts = sum();
    return counts.maker + counts.makersQemu <= killRounds / 4 || Object.values(counts).includes(0);
  };
  const ends = await Promise.allSettled(lanes.map(async (lane) => {
    try {
      while (rounds < killRounds || (isMissing() && rounds < 5 * killRounds)) {
        rounds++;
        await lane.round();
      }
      await lane.whole();
    } catch (error) {
      rounds = 5 * killRounds; // the others stop, too
      throw error;
    }
  }));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  const counts = sum();
  console.log(`[vm tests] killed: ${JSON.stringify(counts)}`);
  expect(counts.rounds).toBeGreaterThanOrEqual(killRounds);
  expect(counts.maker + counts.makersQemu).toBeGreaterThan(killRounds / 4);
  for (const count of Object.values(counts)) expect(count).toBeGreaterThan(0);
});

interface Run {
  child: ChildProcess;
  done: Promise<PyroResult>;
  /** So far. */
  stderr(): string;
  said(pattern: RegExp): Promise<void>;
}

/** A cache of its own, in which one round after the other kills what runs. */
class Lane {
  /** Rounds, and what was there to be killed, doing what it was meant to be killed at. */
  readonly counts = { rounds: 0, maker: 0, makersQemu: 0, whileAnotherWaited: 0, pyro: 0, forksQemu: 0 };
  readonly #home: string;
  readonly #random: () => number;
  /** How long each takes here and now, milliseconds: the moments are spread over it. */
  #makingMs = 0;
  #endMs = 0;
  #forkMs = 0;

  private constructor(index: number) {
    this.#random = lcg(20261123 + index);
    this.#home = join(cache, `lane-${index}`);
    copyCache(join(this.#home, ".cache"), "debian:12-base");
    mkdirSync(this.#spares);
  }

  static async open(index: number): Promise<Lane> {
    const lane = new Lane(index);
    const making = lane.#start();
    const at = async (mark: RegExp) => making.said(mark).then(() => performance.now());
    const [warmed, made] = await Promise.all([at(/warmed command=true /), at(/template made/), making.done]);
    lane.#makingMs = Number(/template made .* ms=(\d+)/.exec(making.stderr())![1]);
    lane.#endMs = made - warmed;
    const begin = performance.now();
    await lane.whole();
    lane.#forkMs = performance.now() - begin;
    return lane;
  }

  async round(): Promise<void> {
    this.counts.rounds++;
    if (this.counts.maker + this.counts.makersQemu < 0.36 * this.counts.rounds) await this.#killMaker();
    else await this.#killRun();
    expect({ clean: await eventually(() => processesWith(this.#home).length === 0), left: leftovers(this.#home) }).toEqual({ clean: true, left: [] });
  }

  /** What is there as a template is one. */
  async whole(): Promise<void> {
    const made = this.#keys().length > 0;
    const { status, stdout, stderr } = await this.#start().done;
    expect({ status, stdout }).toEqual({ status: 0, stdout: "done\n" });
    expect(stderr).not.toMatch(/did not work|is damaged|no template/);
    if (made) expect(stderr).not.toContain("phase=template");
  }

  async #killMaker(): Promise<void> {
    for (const key of this.#keys()) renameSync(join(this.#templates, key), join(this.#spares, `${key}.${this.counts.rounds}`));
    // What was not hit yet is tried until it is: with few rounds, chance alone leaves something out.
    const { maker: makers, makersQemu, whileAnotherWaited } = this.counts;
    const both = whileAnotherWaited === 0 || this.#random() < 0.2 ? [this.#start(), this.#start()] : [this.#start()];
    const victim = (makers > 0 && makersQemu === 0) || this.#random() > 0.65 ? "qemu" : "pyro";
    // Anywhere in the making, or at its end, where the state is saved and the template gets its name.
    const [mark, ms] = this.#random() < 0.7 ? [/phase=template/, this.#random() * 0.9 * this.#makingMs] : [/warmed command=true /, this.#random() * 0.9 * this.#endMs];
    const maker = await Promise.race(both.map((each) => each.said(mark).then(() => each)));
    await new Promise((resolve) => setTimeout(resolve, ms));
    const hit = this.#kill(maker, victim);
    const results = await Promise.all(both.map((each) => each.done));
    // Whoever was through with it tells how long that takes by now.
    const [, madeMs] = /template made .* ms=(\d+)/.exec(maker.stderr()) ?? [];
    if (madeMs !== undefined) [this.#makingMs, this.#endMs] = [Number(madeMs), (this.#endMs * Number(madeMs)) / this.#makingMs];
    // A template's QEMU shares its memory with the file, a fork's does not.
    if (victim === "pyro" ? hit !== undefined && !maker.stderr().includes("template made") : hit?.includes("share=on") === true) {
      this.counts[victim === "pyro" ? "maker" : "makersQemu"]++;
      if (both.length > 1) this.counts.whileAnotherWaited++;
    }
    for (const [index, { status, stdout, stderr }] of results.entries()) {
      // Who only waited has its result; so has whoever lost the QEMU of the template it made.
      if (victim === "pyro" && both[index] === maker && status === null) continue;
      if (victim === "qemu" && hit?.includes("share=off") && status === 125) continue;
      const what = { victim, mark: String(mark), ms, hit, stderr };
      expect({ ...what, status, stdout }).toEqual({ ...what, status: 0, stdout: "done\n" });
    }
    if (this.#keys().length > 0) await this.whole();
  }

  async #killRun(): Promise<void> {
    // Bringing one back is quicker than making it.
    const spare = readdirSync(this.#spares)[0];
    if (this.#keys().length === 0 && spare !== undefined) renameSync(join(this.#spares, spare), join(this.#templates, spare.split(".")[0]!));
    if (this.#keys().length === 0) await this.whole();
    const begin = performance.now();
    const run = this.#start();
    const victim = (this.counts.pyro > 0 && this.counts.forksQemu === 0) || this.#random() > 0.85 ? "qemu" : "pyro";
    const ms = this.#random() * 0.8 * this.#forkMs;
    await new Promise((resolve) => setTimeout(resolve, ms));
    const hit = this.#kill(run, victim);
    const { status, stdout, stderr } = await run.done;
    if (hit !== undefined) this.counts[victim === "pyro" ? "pyro" : "forksQemu"]++;
    else this.#forkMs = performance.now() - begin;
    const what = { victim, ms, hit, stderr };
    // Right or told to be wrong, never wrong.
    if (status === 0) expect({ ...what, stdout }).toEqual({ ...what, stdout: "done\n" });
    else if (victim === "qemu") expect({ ...what, status, stderr }).toEqual({ ...what, status: 125, stderr: expect.stringContaining("error:") as string });
    if (victim === "pyro" || hit === undefined) expect(stderr).not.toMatch(/did not work|is damaged|no template/);
  }

  /** The command line of what was killed; undefined if it was not there. */
  #kill({ child }: Run, victim: "pyro" | "qemu"): string | undefined {
    if (victim === "pyro") return child.kill("SIGKILL") ? child.spawnargs.join(" ") : undefined;
    const qemu = processesWith(this.#home).find((line) => line.includes("qemu-system") && !line.includes("pyro-keeper"));
    try {
      if (qemu !== undefined) process.kill(Number(qemu.split(" ")[0]), "SIGKILL");
      return qemu;
    } catch {
      return undefined; // it ended just now
    }
  }

  #start(): Run {
    const child = startPyro(["run", "debian:12-base", "--mem-mib", "128", "--", "sh", "-c", "echo done"], { XDG_CACHE_HOME: join(this.#home, ".cache"), PYRO_LOG: "debug" });
    let stderr = "";
    child.stderr!.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const done = collect(child);
    const said = (pattern: RegExp) => new Promise<void>((resolve, reject) => {
      child.stderr!.on("data", () => pattern.test(stderr) && resolve());
      void done.then(({ status, signal }) => reject(new Error(`ended (${status ?? signal}) without saying ${pattern.source}:\n${stderr}`)));
    });
    return { child, done, stderr: () => stderr, said };
  }

  get #templates(): string {
    return join(this.#home, ".cache", "pyro-mcp", "templates");
  }

  /** Where whole templates are out of the way: a place in the same file system. */
  get #spares(): string {
    return join(this.#home, "spares");
  }

  #keys(): string[] {
    return readdirSync(this.#templates).filter((name) => /^[0-9a-f]{64}$/.test(name));
  }
}

/** A linear congruential generator: the same moments at every run. */
function lcg(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
}

/** One that is whole: whatever was damaged before has been made anew. */
async function leaveOne(): Promise<void> {
  if (keys().length > 1) leaveNone();
  if (keys().length === 0) await trace();
}

function leaveNone(): void {
  for (const key of keys()) rmSync(join(templates, key), { recursive: true });
}

function overwrite(name: string): void {
  const fd = openSync(file(name), "r+");
  writeSync(fd, Buffer.alloc(4096, 255), 0, 4096, 8192);
  closeSync(fd);
}

/** As if the damage had been there when the template was made. */
function restamp(): void {
  const manifest = JSON.parse(readFileSync(file("manifest.json"), "utf8")) as { files: Record<string, string> };
  for (const name of Object.keys(manifest.files)) {
    const { ino, size, mtimeNs, ctimeNs } = statSync(file(name), { bigint: true });
    manifest.files[name] = `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
  }
  writeFileSync(file("manifest.json"), JSON.stringify(manifest));
}
