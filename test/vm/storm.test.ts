// Everything at once: four processes use shared VMs through the SDK, while processes are killed and stopped, clocks jump and the disk is full for a while. Afterwards
// every record is true, nothing runs that should not, and no file is lost that a stopped VM was to keep. PYRO_STORM_SEED repeats the choices (not their timing).
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { createInterface, type Interface } from "node:readline";
import { afterAll, expect, test } from "vitest";
import { eventually, processesWith } from "./pyro.js";

const seed = Number(process.env["PYRO_STORM_SEED"] ?? Math.floor(Math.random() * 1e9));
const operations = Number(process.env["PYRO_STORM_OPERATIONS"] ?? 500);
const stormMs = Number(process.env["PYRO_STORM_MS"] ?? 150_000);
const most = 7; // VMs at a time
const lastingSeconds = 3600;
const stormPatienceMs = 10_000; // then the process is killed, which is one more thing that happens
const calmPatienceMs = 600_000; // before and after it nothing is to happen, and a slow host may take its time

const state = mkdtempSync(join(tmpdir(), "pyro-storm-"));
const places = join(state, "pyro-mcp", "vms");
let isMounted = false;
afterAll(async () => {
  for (const lane of lanes) lane.kill();
  // Also after a failure: what a VM of ours held would be missing in the tests that follow.
  for (const { pid } of processes()) signal(pid, "SIGKILL");
  await eventually(() => processes().length === 0);
  if (isMounted) execFileSync("umount", ["--lazy", state]);
  rmSync(state, { recursive: true, force: true });
});

/** mulberry32: small, and the same everywhere. */
function generator(from: number): (below: number) => number {
  let at = from;
  return (below) => {
    at = (at + 0x6d2b79f5) | 0;
    let t = Math.imul(at ^ (at >>> 15), 1 | at);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * below);
  };
}

interface Tracked {
  /** As far as whoever used it last knows; another process, a kill or its time to live may have changed it. */
  state: "created" | "started" | "stopped";
  /** It outlives the storm unless somebody deletes it. */
  lasts: boolean;
  /** Rises at the beginning and the end of each start and stop of it. */
  turn: number;
  /** Files that a command said it wrote, with the number of full disks there had been by then, and the turn it was. */
  written: Map<string, { disks: number; turn: number }>;
  /** Files that were written before a stop in which the guest powered itself off. */
  promised: Set<string>;
  /** How many full disks there had been when its latest life began; undefined when that was seen to end well. */
  lifeDisks: number | undefined;
  /**
   * A disk was full while it ran. What a guest's file system could not write then it does not write later, and a stop that comes when there is room again does not show it:
   * what such a guest writes from then on is promised to nobody. What it was promised before is.
   */
  isDoubtful: boolean;
  /** What was done to it, for whoever wants to know why something is lost. */
  history: string[];
}
const vms = new Map<string, Tracked>();
/** The lanes whose process is at something. */
const running = new Set<Lane>();
/** Rises at the beginning and the end of a full disk, which may cost a guest what it wrote. */
let fullDisks = 0;
let isFull = false;
const counts: Record<string, number> = {};
const wrong: string[] = [];
let token = 0;
let patienceMs = calmPatienceMs;
/** Those that were said to have failed: of no use but to be deleted. */
const failed = new Set<string>();

const count = (what: string) => (counts[what] = (counts[what] ?? 0) + 1);

interface Answer {
  result?: unknown;
  error?: { code: string; message: string };
}

/** A process that uses the VMs, started again when it was killed. */
class Lane {
  #worker: ChildProcess | undefined;
  #lines: Interface | undefined;

  /** Undefined when the process was killed before it had answered. */
  async run(verb: string, ...args: unknown[]): Promise<Answer | undefined> {
    if (this.#worker === undefined || this.#lines === undefined) {
      this.#worker = spawn(process.execPath, [new URL("storm-worker.mjs", import.meta.url).pathname], { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, XDG_STATE_HOME: state } });
      this.#worker.stdin!.on("error", () => {});
      this.#lines = createInterface({ input: this.#worker.stdout! }).once("close", () => (this.#lines = undefined));
    }
    const worker = this.#worker;
    const lines = this.#lines;
    running.add(this);
    const timer = setTimeout(() => worker.kill("SIGKILL"), patienceMs);
    worker.stdin!.write(`${JSON.stringify([verb, ...args])}\n`);
    // At most one line comes for one; the end of the process ends the lines, too.
    const answer = await new Promise<Answer | undefined>((resolve) => {
      const done = (line?: string) => {
        lines.off("line", done).off("close", done);
        resolve(line === undefined ? undefined : (JSON.parse(line) as Answer));
      };
      lines.on("line", done).on("close", done);
    });
    clearTimeout(timer);
    running.delete(this);
    vms.get(String(args[0]))?.history.push(`${verb} ${answer === undefined ? "killed" : (answer.error?.code ?? "done")}, full disks ${fullDisks}, exit ${exitOf(String(args[0])).trim()}`);
    if (answer === undefined) count("killed");
    const { code, message } = answer?.error ?? { code: undefined, message: "" };
    if (code !== undefined) count(`error ${code}`);
    // What comes of a kill, a stopped QEMU or a full disk has a code; these would be our own mistakes.
    if (code === "INTERNAL" || code === "PROTOCOL") wrong.push(`${verb} ${args.join(" ")}: ${code} ${message}`);
    // Whoever deletes one has forgotten it before.
    if (code === "NOT_FOUND" && typeof args[0] === "string" && vms.get(args[0])?.lasts === true) wrong.push(`${verb} ${args[0]}: it is gone, and nobody deleted it`);
    const broken = /The VM (vm-[0-9a-z]{8}) failed/.exec(message)?.[1];
    if (broken !== undefined) failed.add(broken);
    if (code === "DISK_FULL") await new Promise((resolve) => setTimeout(resolve, 300)); // it comes at once, and would be most of the operations
    return answer;
  }

  kill(): boolean {
    return this.#worker?.kill("SIGKILL") ?? false;
  }

  /** Resolves when it is gone; the next `run` starts another one. */
  async end(): Promise<void> {
    const lines = this.#lines;
    if (lines === undefined) return;
    const closed = once(lines, "close");
    this.kill();
    await closed;
  }

  async step(next: (below: number) => number): Promise<void> {
    const ids = [...vms.keys()];
    const roll = next(100);
    if (ids.length === 0 || roll < 12) return this.#create(next);
    const id = ids[next(ids.length)]!;
    const vm = vms.get(id)!;
    if (roll < 15) {
      count("clock jump");
      return void (await this.run("jump", (next(20) - 10) * 86_400_000));
    }
    if (roll < 22) return void (await [() => this.run("list"), () => this.run("status", id), () => this.run("status", id), () => this.run("reap")][next(4)]!());
    if (roll < 26 || failed.has(id)) {
      vms.delete(id);
      return void (await (next(2) === 0 ? this.run("delete", id) : this.run("execVm", id, ["true"])));
    }
    // Mostly what makes sense, as far as one knows, and sometimes anything.
    const verbs = next(5) === 0 ? ["start", "write", "check", "stop"] : vm.state === "started" ? ["write", "write", "check", "stop"] : ["start"];
    const verb = verbs[next(verbs.length)]!;
    if (verb === "start") await this.#start(id, vm);
    else if (verb === "write") await this.#write(id, vm);
    else if (verb === "check") await this.check(id, vm);
    else await this.#stop(id, vm);
  }

  async #create(next: (below: number) => number): Promise<void> {
    if (vms.size >= most) return void (await this.run("list"));
    const made = await this.#make(next(6) === 0 ? 3 + next(15) : lastingSeconds);
    if (made !== undefined && next(2) === 0) await this.#start(...made);
  }

  async #make(ttlSeconds: number): Promise<[string, Tracked] | undefined> {
    const answer = await this.run("create", { environment: "debian:12-base", memMib: 256, ttlSeconds });
    if (answer?.result === undefined) return undefined;
    const { vmId } = answer.result as { vmId: string };
    const vm: Tracked = { state: "created", lasts: ttlSeconds === lastingSeconds, turn: 0, written: new Map(), promised: new Set(), lifeDisks: undefined, isDoubtful: false, history: [] };
    vms.set(vmId, vm);
    return [vmId, vm];
  }

  /** A VM with a file that was promised and is looked for: whatever the storm brings, that much was seen. */
  async beforeTheStorm(): Promise<void> {
    const made = await this.#make(lastingSeconds);
    if (made === undefined) return;
    await this.#start(...made);
    await this.#write(...made);
    await this.#stop(...made);
    await this.#start(...made);
    await this.check(...made);
  }

  async #start(id: string, vm: Tracked): Promise<void> {
    vm.turn++;
    if (vm.lifeDisks !== undefined && vm.lifeDisks !== fullDisks) vm.isDoubtful = true;
    vm.lifeDisks = fullDisks;
    if ((await this.run("start", id))?.result !== undefined) vm.state = "started";
    vm.turn++;
  }

  async #write(id: string, vm: Tracked): Promise<void> {
    const name = `file-${token++}`;
    const before = { disks: fullDisks, turn: vm.turn };
    const answer = await this.run("exec", id, `echo ${name} > /root/${name}`);
    if (exitCode(answer) === 0 && !isFull && vm.turn === before.turn) vm.written.set(name, before);
  }

  async check(id: string, vm: Tracked): Promise<void> {
    const wanted = [...vm.promised];
    const answer = await this.run("exec", id, "cd /root && cat file-* 2>/dev/null; echo all");
    if (exitCode(answer) !== 0) return;
    const got = new Set((answer!.result as { stdout: string }).stdout.split("\n"));
    count("checked");
    counts["files checked"] = (counts["files checked"] ?? 0) + wanted.length;
    const lost = wanted.filter((each) => !got.has(each));
    wrong.push(...lost.map((each) => `${id} lost ${each}`));
    if (lost.length > 0) console.log(`[storm] ${id}: ${vm.history.join("; ")}; there: ${[...got].filter((each) => each.startsWith("file-")).join()}`);
  }

  async #stop(id: string, vm: Tracked): Promise<void> {
    // What was written while no other start or stop was at work on it, as that one may end it otherwise, or begin it again before we see how this one ended it.
    const before = [...vm.written].filter(([, { turn }]) => turn === vm.turn);
    const turn = ++vm.turn;
    const answer = await this.run("stop", id);
    if (answer?.result !== undefined) vm.state = "stopped";
    const isNormal = answer?.result !== undefined && exitOf(id) === "program 0\n" && vm.turn === turn;
    vm.turn++;
    // A guest that was ended as it was, as it did not power itself off in time, was promised nothing.
    if (!isNormal) return;
    count("stopped normally");
    if (vm.lifeDisks !== fullDisks) vm.isDoubtful = true;
    vm.lifeDisks = undefined;
    if (vm.isDoubtful) return;
    for (const [name, { disks }] of before) if (disks === fullDisks) vm.promised.add(name);
  }
}

/** How it ended; nothing where somebody has started it again meanwhile. */
function exitOf(id: string): string {
  try {
    return readFileSync(join(places, id, "exit"), "latin1");
  } catch {
    return "";
  }
}

const lanes = Array.from({ length: 4 }, () => new Lane());
const exitCode = (answer: Answer | undefined) => (answer?.result as { exitCode?: number } | undefined)?.exitCode;

const processes = () => processesWith(places).map((line) => ({ pid: Number(line.split(" ")[0]), isKeeper: / keep /.test(line), isQemu: line.includes("qemu") && !line.includes("pyro-keeper"), id: /vm-[0-9a-z]{8}/.exec(line)?.[0] }));

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // it has ended meanwhile
  }
}

/** One trouble for each few operations, so that a slow host has as much of either as a fast one. */
async function trouble(next: (below: number) => number, done: () => number, isOver: () => boolean): Promise<void> {
  const stopped: number[] = [];
  for (let due = 5; !isOver(); due = done() + 3 + next(6)) {
    while (done() < due && !isOver()) await new Promise((resolve) => setTimeout(resolve, 100));
    await new Promise((resolve) => setTimeout(resolve, next(1200)));
    const roll = next(10);
    if (roll < 4) {
      const lane = [...running][next(running.size || 1)];
      if (lane !== undefined && lane.kill()) count("SIGKILL of a process");
    } else if (roll < 6) {
      const keepers = processes().filter((each) => each.isKeeper);
      if (keepers.length > 0 && next(2) === 0) {
        signal(keepers[next(keepers.length)]!.pid, "SIGKILL");
        count("SIGKILL keeper");
      }
    } else if (roll < 7) {
      const qemus = processes().filter((each) => each.isQemu);
      if (qemus.length > 0 && next(2) === 0) {
        signal(qemus[next(qemus.length)]!.pid, "SIGKILL");
        count("SIGKILL QEMU");
      }
    } else if (roll < 8) {
      const qemus = processes().filter((each) => each.isQemu);
      if (qemus.length > 0) {
        const { pid } = qemus[next(qemus.length)]!;
        stopped.push(pid);
        signal(pid, "SIGSTOP");
        count("SIGSTOP QEMU");
      }
    } else if (roll < 9) {
      const pid = stopped.splice(next(stopped.length || 1), 1)[0];
      if (pid !== undefined && processes().some((each) => each.pid === pid)) signal(pid, "SIGCONT");
    } else if (isMounted) {
      fullDisks++;
      isFull = true;
      count("full disk");
      try {
        writeFileSync(join(state, "filler"), Buffer.alloc(statfsSync(state).bavail * statfsSync(state).bsize + (1 << 20)));
      } catch {
        // that is what it is for
      }
      await new Promise((resolve) => setTimeout(resolve, 1500));
      rmSync(join(state, "filler"), { force: true });
      isFull = false;
      fullDisks++;
    }
  }
}

/** An ext4 of its own in a file, which lives on without its name; false where there is no loop device. */
function mountSmall(): boolean {
  const image = `${state}.ext4`;
  try {
    execFileSync("mkfs.ext4", ["-q", "-m", "0", image, "400m"], { stdio: "ignore" });
    execFileSync("mount", ["-o", "loop", image, state], { stdio: "ignore" });
    rmdirSync(join(state, "lost+found"));
    return true;
  } catch {
    return false;
  } finally {
    rmSync(image, { force: true });
  }
}

function mountInMemory(): boolean {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=400m,mode=700", "tmpfs", state], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

interface Seen {
  kept: string[];
  monitors: number;
  places: string[];
  strayLocks: string[];
  records: string[];
}

/** What is said of VMs, and what is there of them. */
async function look(lane: Lane): Promise<{ listed: { vmId: string; state: string }[]; said: Seen; there: Seen }> {
  expect((await lane.run("reap"))?.error).toBeUndefined();
  const listed = (await lane.run("list"))!.result as { vmId: string; state: string }[];
  const running = processes();
  const ids = listed.map((each) => each.vmId).sort();
  const started = listed.filter((each) => each.state === "started").map((each) => each.vmId).sort();
  return {
    listed,
    said: { kept: started, monitors: started.length, places: ids, strayLocks: [], records: listed.map(({ vmId, state: said }) => `${vmId} ${said}`) },
    there: {
      kept: running.flatMap(({ isKeeper, id }) => (isKeeper && id !== undefined ? [id] : [])).sort(),
      monitors: running.filter((each) => each.isQemu).length,
      places: readdirSync(places).sort(),
      strayLocks: readdirSync(join(state, "pyro-mcp", "vm-locks")).filter((name) => !ids.includes(name)),
      records: listed.map(({ vmId }) => recordOf(vmId)),
    },
  };
}

function recordOf(id: string): string {
  try {
    const { vm_id: written, state: is } = JSON.parse(readFileSync(join(places, id, "vm.json"), "utf8")) as { vm_id: string; state: string };
    return `${written} ${is}`;
  } catch (error) {
    return String(error);
  }
}

test(`a storm (PYRO_STORM_SEED=${seed})`, { timeout: stormMs + 1_800_000 }, async () => {
  isMounted = mountSmall() || mountInMemory();
  if (!isMounted) console.log("[storm] no file system can be mounted here, so no disk is full");
  console.log(`[storm] PYRO_STORM_SEED=${seed}`);
  await lanes[0]!.beforeTheStorm();
  patienceMs = stormPatienceMs;
  const begin = Date.now();
  let left = operations;
  const go = async (lane: Lane, n: number) => {
    const next = generator(seed + n);
    while (Date.now() - begin < stormMs && left-- > 0) await lane.step(next);
  };
  let isOver = false;
  const havoc = trouble(generator(seed + lanes.length), () => operations - left, () => isOver);
  await Promise.all(lanes.map(go));
  isOver = true;
  await havoc;
  console.log(`[storm] ${operations - Math.max(0, left)} operations in ${Math.round((Date.now() - begin) / 1000)} s: ${JSON.stringify(counts)}`);

  // Calm. What is there says what it is, and what runs is what is said to run. A VM with little time to live may end between two looks, and a keeper is there a moment
  // longer than what it kept: then there is another look.
  patienceMs = calmPatienceMs;
  const lane = lanes[0]!;
  let seen = await look(lane);
  for (let looks = 1; looks < 200 && !isDeepStrictEqual(seen.there, seen.said); looks++) {
    if (looks === 20) {
      // What is no VM of the record yet, or any more, is its maker's and has to go with it.
      console.log(`[storm] what is there is not what is said: ${JSON.stringify(seen)}`);
      await Promise.all(lanes.map((each) => each.end()));
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
    seen = await look(lane);
  }
  expect(seen.there).toEqual(seen.said);
  const { listed } = seen;
  const ids = listed.map((each) => each.vmId);
  expect([...vms].filter(([id, { lasts }]) => lasts && !ids.includes(id)).map(([id]) => id), "VMs that nobody deleted").toEqual([]);
  for (const { pid, isQemu } of processes()) if (isQemu) signal(pid, "SIGCONT");
  for (const { vmId: id, state: written } of listed) {
    const vm = vms.get(id);
    if (vm === undefined || (written !== "stopped" && written !== "started")) continue;
    const start = written === "stopped" ? await lane.run("start", id) : { result: "runs" };
    if (start?.result !== undefined) await lane.check(id, vm);
    // One with little time may have none left by now.
    else if (!/time to live ended/.test(start?.error?.message ?? "") && (vm.lasts || start?.error?.code !== "NOT_FOUND")) wrong.push(`${id} could not be started again: ${start?.error?.code} ${start?.error?.message}`);
  }
  console.log(`[storm] afterwards: ${JSON.stringify(counts)}`);
  expect(wrong).toEqual([]);
  expect(counts["files checked"]).toBeGreaterThan(0);
  for (const id of ids) expect([undefined, "NOT_FOUND"], id).toContain((await lane.run("delete", id))?.error?.code);
  expect((await lane.run("reap"))?.error).toBeUndefined();
  await lane.end();
  await eventually(() => processes().length === 0);
  expect([readdirSync(places), readdirSync(join(state, "pyro-mcp", "vm-locks")), processes()]).toEqual([[], [], []]);
});
