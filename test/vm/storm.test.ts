// Everything at once: four lanes of commands on shared VMs, while processes are killed and stopped and the disk is full for a while. Afterwards
// every record is true, nothing runs that should not, and no file is lost that a stopped VM was to keep. PYRO_STORM_SEED repeats the choices (not their timing).
import { execFileSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { collect, eventually, processesWith, startPyro } from "./pyro.js";

const seed = Number(process.env["PYRO_STORM_SEED"] ?? Math.floor(Math.random() * 1e9));
const operations = Number(process.env["PYRO_STORM_OPERATIONS"] ?? 500);
const stormMs = 150_000;
const lanes = 4;
const most = 7; // VMs at a time
const patienceMs = 20_000; // then the command is killed, which is one more thing that happens

const state = mkdtempSync(join(tmpdir(), "pyro-storm-"));
const places = join(state, "pyro-mcp", "vms");
let isMounted = false;
afterAll(() => {
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
  /** Files that a command said it wrote, with the number of troubles there had been by then. */
  written: Map<string, number>;
  /** Files that were written before a stop in which the guest powered itself off. */
  promised: Set<string>;
}
const vms = new Map<string, Tracked>();
const running = new Set<ChildProcess>();
/** Rises with whatever may cost a guest what it wrote: a full disk, a stopped QEMU. */
let troubles = 0;
let isFull = false;
const counts: Record<string, number> = {};
const wrong: string[] = [];
let token = 0;
/** Those that were said to have failed: of no use but to be deleted. */
const failed = new Set<string>();

const count = (what: string) => (counts[what] = (counts[what] ?? 0) + 1);

async function run(...args: string[]) {
  const child = startPyro(["vm", ...args], { XDG_STATE_HOME: state });
  running.add(child);
  const result = await collect(child, { timeoutMs: patienceMs });
  running.delete(child);
  const said = result.stderr.trim();
  if (result.signal === null && /"code": "INTERNAL"|TypeError|fault of pyro|PROTOCOL/.test(said)) wrong.push(`${args.join(" ")}: ${said}`);
  if (result.signal === null && /"code": "([A-Z_]+)"/.test(said)) count(`error ${/"code": "([A-Z_]+)"/.exec(said)![1]!}`);
  if (result.signal !== null) count("killed pyro");
  const broken = /The VM (vm-[0-9a-z]{8}) failed/.exec(said)?.[1];
  if (broken !== undefined) failed.add(broken);
  return result;
}

async function create(next: (below: number) => number): Promise<void> {
  if (vms.size >= most) return void (await run("list", "--json"));
  const ttl = next(6) === 0 ? 3 + next(15) : 600;
  const result = await run("create", "debian:12-base", "--mem-mib", "256", "--ttl-seconds", String(ttl), "--json", ...(next(2) === 0 ? ["--start"] : []));
  if (result.status === 0) vms.set((JSON.parse(result.stdout) as { vm_id: string }).vm_id, { written: new Map(), promised: new Set() });
}

async function write(id: string, vm: Tracked): Promise<void> {
  const name = `file-${token++}`;
  const before = troubles;
  const result = await run("exec", id, "--json", "--", "sh", "-c", `echo ${name} > /root/${name}`);
  if (result.status === 0 && !isFull) vm.written.set(name, before);
}

async function check(id: string, vm: Tracked): Promise<void> {
  const wanted = [...vm.promised];
  const result = await run("exec", id, "--json", "--", "sh", "-c", "cd /root && cat file-* 2>/dev/null; echo all");
  if (result.status !== 0) return;
  const got = new Set((JSON.parse(result.stdout) as { stdout: string }).stdout.split("\n"));
  count("checked");
  for (const each of wanted) if (!got.has(each)) wrong.push(`${id} lost ${each}`);
}

async function stop(id: string, vm: Tracked): Promise<void> {
  const before = [...vm.written];
  const result = await run("stop", id, "--json");
  const exit = existsSync(join(places, id, "exit")) ? readFileSync(join(places, id, "exit"), "latin1") : "";
  // A guest that was ended as it was, as it did not power itself off in time, was promised nothing.
  if (result.status !== 0 || exit !== "program 0\n") return;
  count("stopped normally");
  for (const [name, at] of before) if (at === troubles) vm.promised.add(name);
}

async function step(next: (below: number) => number): Promise<void> {
  const ids = [...vms.keys()];
  const roll = next(100);
  if (ids.length === 0 || roll < 12) return create(next);
  const id = ids[next(ids.length)]!;
  const vm = vms.get(id)!;
  if (roll < 30 && !failed.has(id)) await run("start", id, "--json");
  else if (roll < 56 && !failed.has(id)) await write(id, vm);
  else if (roll < 66) await check(id, vm);
  else if (roll < 70) {
    vms.delete(id);
    await run("exec", id, "--rm", "--json", "--", "true");
  } else if (roll < 84) await stop(id, vm);
  else if (roll < 88 || failed.has(id)) {
    vms.delete(id);
    await run("delete", id, "--json");
  } else if (roll < 92) await run("list", "--json");
  else if (roll < 97) await run("status", id, "--json");
  else await run("reap", "--json");
}

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
      const child = [...running][next(running.size || 1)];
      if (child !== undefined && child.kill("SIGKILL")) count("SIGKILL pyro");
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
        troubles++;
        const { pid } = qemus[next(qemus.length)]!;
        stopped.push(pid);
        signal(pid, "SIGSTOP");
        count("SIGSTOP QEMU");
      }
    } else if (roll < 9) {
      const pid = stopped.splice(next(stopped.length || 1), 1)[0];
      if (pid !== undefined && processes().some((each) => each.pid === pid)) signal(pid, "SIGCONT");
      troubles++;
    } else if (isMounted) {
      troubles++;
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
      troubles++;
    }
  }
}

test(`a storm (PYRO_STORM_SEED=${seed})`, { timeout: 420_000 }, async () => {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=400m,mode=700", "tmpfs", state], { stdio: "ignore" });
    isMounted = true;
  } catch {
    console.log("[storm] no file system can be mounted here, so no disk is full");
  }
  console.log(`[storm] PYRO_STORM_SEED=${seed}`);
  const begin = Date.now();
  let left = operations;
  const lane = async (n: number) => {
    const next = generator(seed + n);
    while (left-- > 0 && Date.now() - begin < stormMs) await step(next);
  };
  let isOver = false;
  const havoc = trouble(generator(seed + lanes), () => operations - left, () => isOver);
  await Promise.all(Array.from({ length: lanes }, (_, n) => lane(n)));
  isOver = true;
  await havoc;
  console.log(`[storm] ${operations - Math.max(0, left)} operations in ${Math.round((Date.now() - begin) / 1000)} s: ${JSON.stringify(counts)}`);

  // Calm. What is there says what it is, and what runs is what is said to run.
  expect((await run("reap", "--json")).status).toBe(0);
  await eventually(5000, () => processes().every((each) => each.id === undefined || existsSync(join(places, each.id))));
  const listed = (JSON.parse((await run("list", "--json")).stdout) as { vms: { vm_id: string; state: string }[] }).vms;
  const started = listed.filter((each) => each.state === "started").map((each) => each.vm_id).sort();
  expect(processes().flatMap((each) => (each.isKeeper && each.id !== undefined ? [each.id] : [])).sort()).toEqual(started);
  expect(processes().filter((each) => each.isQemu).length).toBe(started.length);
  const ids = listed.map((each) => each.vm_id).sort();
  expect(readdirSync(places).sort()).toEqual(ids);
  expect(readdirSync(join(state, "pyro-mcp", "vm-locks")).filter((name) => !ids.includes(name))).toEqual([]);
  for (const { vm_id: id, state: written } of listed) expect(JSON.parse(readFileSync(join(places, id, "vm.json"), "utf8"))).toMatchObject({ vm_id: id, state: written });
  for (const { vm_id: id, state: written } of listed) {
    const vm = vms.get(id);
    if (written !== "stopped" || vm === undefined) continue;
    const start = await run("start", id, "--json");
    if (start.status === 0) await check(id, vm);
    else if (start.signal === null) wrong.push(`${id} could not be started again: ${start.stderr}`);
  }
  expect(wrong).toEqual([]);
  for (const id of ids) expect([0, 1], id).toContain((await run("delete", id, "--json")).status);
  expect((await run("reap", "--json")).status).toBe(0);
  expect([readdirSync(places), readdirSync(join(state, "pyro-mcp", "vm-locks")), processes()]).toEqual([[], [], []]);
});
