// VMs that outlive the process that made them: real guests, the built command line and the SDK.
import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { attachVm } from "../../src/core/vms/index.js";
import { powerOffPatience } from "../../src/core/vms/stop.js";
import { Pyro } from "../../src/index.js";
import { collect, eventually, leftForGood, processesWith, pyro, signalProcess, startPyro, type PyroResult } from "./pyro.js";

const home = process.env["HOME"]!;
const sdk = new Pyro();
const environment = "debian:12-base";

afterEach(async () => {
  for (const { vmId } of await sdk.listVms()) await sdk.deleteVm(vmId);
  await sdk.reapExpired();
});
afterAll(async () => {
  expect(await leftForGood(home)).toEqual([]);
});

const vm = (...args: string[]) => pyro(["vm", ...args]);
const exec = (id: string, ...command: string[]) => pyro(["vm", "exec", id, "--quiet", "--", ...command]);
const stateOf = async (id: string) => ((result: PyroResult) => (result.status === 0 ? (JSON.parse(result.stdout) as { state: string }).state : result.stderr))(await vm("status", id, "--json"));

/** What its record says, whatever is true. */
const stateWritten = (id: string) => (JSON.parse(readFileSync(join(home, ".local/state/pyro-mcp/vms", id, "vm.json"), "utf8")) as { state: string }).state;

async function created(ttlSeconds = 1200): Promise<string> {
  return (await sdk.createVm({ environment, memMib: 256, ttlSeconds })).vmId;
}

async function running(ttlSeconds = 1200): Promise<string> {
  const id = await created(ttlSeconds);
  await sdk.startVm(id);
  return id;
}

/** The keeper's process id, and QEMU's. */
function processesOf(id: string): { keeper: number; qemu: number } {
  const keeper = Number(processesWith(`/vms/${id} `).find((line) => / keep /.test(line))!.split(" ")[0]);
  const child = readFileSync(`/proc/${keeper}/task/${keeper}/children`, "latin1").trim();
  return { keeper, qemu: Number(child) };
}
const isAlive = (pid: number) => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
};

test("the whole life of a VM, each step by a process of its own", async () => {
  const made = await vm("create", environment, "--mem-mib", "256", "--json");
  const id = (JSON.parse(made.stdout) as { vm_id: string }).vm_id;
  expect(JSON.parse(made.stdout)).toMatchObject({ state: "created", execution_mode: "pending", mem_mib: 256, vcpu_count: 1, ttl_seconds: 600 });
  expect(await exec(id, "true")).toMatchObject({ status: 125, stderr: expect.stringContaining(`The VM ${id} has not been started.`) });
  expect((await vm("start", id)).stdout).toBe(`${id}\n`);
  expect(await vm("start", id)).toMatchObject({ status: 1, stderr: expect.stringContaining("runs already") });
  expect(await exec(id, "sh", "-c", "echo kept > /root/file; mkdir -p /srv/a; head -c 3000000 /dev/urandom | tee /srv/a/b | sha256sum")).toMatchObject({ status: 0 });
  const sum = (await exec(id, "sha256sum", "/srv/a/b")).stdout;
  expect((await exec(id, "sh", "-c", "cat /root/file; exit 7"))).toMatchObject({ status: 7, stdout: "kept\n", stderr: "" });
  expect(await stateOf(id)).toBe("started");
  expect((await vm("stop", id)).stdout).toBe(`${id}\n`);
  expect(await stateOf(id)).toBe("stopped");
  expect(await exec(id, "true")).toMatchObject({ status: 125, stderr: expect.stringContaining("is stopped") });
  expect((await vm("stop", id)).status).toBe(0);
  expect(await pyro(["env", "remove", environment])).toMatchObject({ status: 1, stderr: expect.stringContaining(`The VM ${id} is of the environment debian:12-base.`) }); // its disk fits no other
  expect((await vm("start", id)).status).toBe(0);
  expect((await exec(id, "cat", "/root/file")).stdout).toBe("kept\n");
  expect((await exec(id, "sha256sum", "/srv/a/b")).stdout).toBe(sum);
  expect((await vm("delete", id)).stdout).toBe(`${id}\n`);
  expect(await vm("status", id)).toMatchObject({ status: 1, stderr: expect.stringContaining("There is no VM") });
  expect(await leftForGood(home)).toEqual([]);
});

test("a template serves many VMs with a record: none of them wears it out", async () => {
  await created().then((id) => sdk.startVm(id)); // makes it, where there is none
  const phases: string[] = [];
  for (let n = 0; n < 2; n++) await sdk.startVm(await created(), { onPhase: ({ phase }) => phases.push(phase) });
  expect(phases).toEqual(["start", "exec", "start", "exec"]);
});

test("an id that is not quite right gives the nearest", async () => {
  const id = await created();
  const wrong = `${id.slice(0, -1)}${id.endsWith("2") ? "3" : "2"}`;
  expect((await vm("start", wrong)).stderr).toContain(`Did you mean ${id}?`);
});

/** A program of an SDK's user that starts the VM, says so, and goes on with `then`. */
function program(id: string, then = "") {
  const script = `const { Pyro } = await import(${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)}); await new Pyro().startVm(${JSON.stringify(id)}); process.stdout.write("started"); ${then}`;
  return spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
}

test("nothing of a VM that a program started keeps that program from its end, or ends with it", async () => {
  const id = await created(100);
  const maker = program(id);
  maker.stdout.resume();
  expect(await new Promise((resolve) => maker.once("exit", resolve))).toBe(0); // at the latest, that of the VM's time
  expect((await exec(id, "echo", "alive")).stdout).toBe("alive\n");
});

test("it outlives its maker, killed at once and killed later", async () => {
  for (const ms of [0, 2000]) {
    const id = await created();
    const maker = program(id, "setInterval(() => {}, 1000);");
    await new Promise((resolve) => maker.stdout.once("data", resolve));
    await new Promise((resolve) => setTimeout(resolve, ms));
    maker.kill("SIGKILL");
    await new Promise((resolve) => maker.once("exit", resolve));
    expect((await exec(id, "echo", "alive")).stdout).toBe("alive\n");
  }
});

test("a maker killed at any moment of a start leaves a VM that can be started or has failed, and none that runs unknown", async () => {
  for (const ms of [60, 150, 250, 350, 450, 600, 750, 900, 1100, 1400, 1800]) {
    const id = await created();
    const child = startPyro(["vm", "start", id]);
    setTimeout(() => child.kill("SIGKILL"), ms);
    await collect(child);
    let { state } = await sdk.statusVm(id);
    expect(["created", "stopped", "started"], `${ms} ms`).toContain(state);
    // Killed between the record and the release, it is still at its end, perhaps.
    if (state === "started" && (await exec(id, "echo", "runs")).stdout !== "runs\n") expect(await eventually(async () => (state = (await sdk.statusVm(id)).state) === "stopped")).toBe(true);
    if (state !== "started") {
      expect(await eventually(() => processesWith(`/vms/${id} `).length === 0), `${ms} ms`).toBe(true);
      await sdk.startVm(id);
    }
    await sdk.deleteVm(id);
  }
});

test("a guest that is slow to write its disk when it is stopped is waited for, one that does nothing is not", async () => {
  const before = { ...powerOffPatience };
  Object.assign(powerOffPatience, { idleMs: 2000, busyCpuMs: 20 });
  const { vmId: id } = await sdk.createVm({ environment, memMib: 1024, ttlSeconds: 1200 });
  await sdk.startVm(id);
  try {
    const { qemu } = processesOf(id);
    expect((await exec(id, "sh", "-c", "cd /proc/sys/vm; echo 90 >dirty_ratio; echo 80 >dirty_background_ratio; echo 1000000 >dirty_writeback_centisecs; head -c 300000000 /dev/zero >/root/file")).status).toBe(0);
    let slowed = 0;
    const slow = setInterval(() => signalProcess(qemu, slowed++ % 10 === 0 ? "SIGCONT" : "SIGSTOP"), 20);
    await sdk.stopVm(id).finally(() => clearInterval(slow));
    console.log(`[vm tests] stopped in ${slowed / 50} s`);
    await sdk.startVm(id);
    expect((await exec(id, "sh", "-c", "wc -c </root/file; du -m /root/file | cut -f1")).stdout).toBe("300000000\n287\n");
    process.kill(processesOf(id).qemu, "SIGSTOP");
    expect(await sdk.stopVm(id)).toMatchObject({ state: "stopped" });
  } finally {
    Object.assign(powerOffPatience, before);
  }
});

test("a start right after the maker of another one was killed waits until what that had started is gone", async () => {
  const id = await running();
  expect((await exec(id, "sh", "-c", "echo kept > /root/file")).status).toBe(0);
  await sdk.stopVm(id);
  const monitor = () => processesWith(`/vms/${id}/`).find((line) => !line.includes("pyro-keeper"));
  let maker: ChildProcess;
  for (;;) {
    maker = startPyro(["vm", "start", id]);
    const ended = collect(maker);
    expect(await eventually(() => monitor() !== undefined || maker.exitCode !== null)).toBe(true);
    // It gets no further while we look how far it has come.
    maker.kill("SIGSTOP");
    expect(await eventually(() => maker.exitCode !== null || /^State:\s+T/m.test(readFileSync(`/proc/${maker.pid}/status`, "latin1")))).toBe(true);
    if (maker.exitCode === null && stateWritten(id) === "stopped") break;
    maker.kill("SIGCONT"); // through with it already
    expect((await ended).status).toBe(0);
    await sdk.stopVm(id);
  }
  const { keeper } = processesOf(id);
  process.kill(keeper, "SIGSTOP"); // a slow host's is as late
  maker.kill("SIGKILL");
  const again = sdk.startVm(id);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  process.kill(keeper, "SIGCONT");
  await again;
  expect((await exec(id, "cat", "/root/file")).stdout).toBe("kept\n");
  expect(await stateOf(id)).toBe("started");
  expect(processesWith(`/vms/${id} `).filter((line) => / keep /.test(line))).toHaveLength(1);
});

describe("the one command of a VM", () => {
  test("its result is the command's, and the VM is gone", async () => {
    const id = await running();
    expect(await sdk.execVm(id, { command: ["sh", "-c", "echo out; exit 3"] })).toMatchObject({ vmId: id, exitCode: 3, stdout: "out\n", timedOut: false });
    expect(await leftForGood(home)).toEqual([]);
  });

  test("timed out, there is a result, and the VM is gone", async () => {
    const id = await running();
    expect(await sdk.execVm(id, { command: "trap '' TERM INT HUP; while :; do sleep 1; done", timeoutSeconds: 1 })).toMatchObject({ timedOut: true, exitCode: 137, signal: "SIGKILL" });
    expect(await leftForGood(home)).toEqual([]);
  });

  test("whoever runs it killed, the VM is gone within moments, and never heard of again", async () => {
    const id = await running();
    const child = startPyro(["vm", "exec", id, "--rm", "--", "sh", "-c", "echo go; sleep 60"]);
    await new Promise((resolve) => child.stdout!.once("data", resolve));
    child.kill("SIGKILL");
    expect(await eventually(() => processesWith(`/vms/${id} `).length === 0)).toBe(true);
    await expect(sdk.statusVm(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await sdk.reapExpired()).toEqual({ reaped: [id] });
  });

  test("of two callers one wins, and the other is told", async () => {
    const id = await running();
    const both = await Promise.allSettled([1, 2].map((n) => sdk.execVm(id, { command: ["sh", "-c", `sleep 1; echo ${n}`] })));
    expect(both.map((each) => each.status).sort()).toEqual(["fulfilled", "rejected"]);
    const lost = both.find((each): each is PromiseRejectedResult => each.status === "rejected")!;
    expect(lost.reason).toMatchObject({ code: "INVALID_STATE" });
  });
});

test("twelve processes with commands on one VM at once are all answered, and a stop is while all ports are taken", async () => {
  const id = await running();
  const results = await Promise.all(Array.from({ length: 12 }, (_, n) => exec(id, "sh", "-c", `sleep 0.3; echo ${n}`)));
  expect(results.map((each) => [each.status, each.stdout])).toEqual(Array.from({ length: 12 }, (_, n) => [0, `${n}\n`]));
  expect((await exec(id, "sh", "-c", "echo promised > /root/file")).status).toBe(0);
  const busy = Array.from({ length: 7 }, () => startPyro(["vm", "exec", id, "--", "sh", "-c", "echo go; sleep 100"]));
  const ends = busy.map((each) => new Promise((resolve) => each.once("exit", resolve)));
  await Promise.all(busy.map((each) => new Promise((resolve) => each.stdout!.once("data", resolve))));
  await sdk.stopVm(id);
  await Promise.all(ends);
  await sdk.startVm(id);
  expect((await exec(id, "cat", "/root/file")).stdout).toBe("promised\n");
});

describe("ends that nobody asked for", () => {
  test("the time to live ends it with no pyro there, also a guest that is root and keeps itself from being powered off", async () => {
    let id = "";
    for (const ttlSeconds of [12, 60, 300]) {
      id = await created(ttlSeconds);
      const begun = await sdk.startVm(id).then(() => exec(id, "sh", "-c", "(trap '' TERM INT HUP PWR; while :; do sleep 1; done) >/dev/null 2>&1 &"), () => undefined);
      if (begun?.status === 0) break;
      await sdk.deleteVm(id).catch(() => sdk.reapExpired()); // a host that takes longer for that much
    }
    expect(await eventually(() => processesWith(`/vms/${id} `).length === 0)).toBe(true);
    await expect(sdk.statusVm(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await sdk.reapExpired()).toEqual({ reaped: [id] });
  });

  test("a guest that powers itself off is stopped and can be started", async () => {
    const id = await running();
    await exec(id, "sh", "-c", "echo here > /root/file; sync; echo o > /proc/sysrq-trigger");
    expect(await eventually(() => processesWith(`/vms/${id} `).length === 0)).toBe(true);
    expect(await sdk.statusVm(id)).toMatchObject({ state: "stopped" });
    await sdk.startVm(id);
    expect((await exec(id, "cat", "/root/file")).stdout).toBe("here\n");
  });

  test.each([["qemu", "its monitor ended with status 137"], ["keeper", "its keeper was killed"]] as const)("%s killed: it failed, with the reason", async (which, why) => {
    const id = await running();
    const { keeper, qemu } = processesOf(id);
    process.kill(which === "qemu" ? qemu : keeper, "SIGKILL");
    expect(await eventually(() => !isAlive(keeper) && !isAlive(qemu))).toBe(true);
    expect(await sdk.statusVm(id)).toMatchObject({ state: "failed", lastError: why });
    expect(await exec(id, "true")).toMatchObject({ status: 125, stderr: expect.stringContaining(why) });
    expect(await sdk.deleteVm(id)).toEqual({ vmId: id, deleted: true });
  });

  test("a QEMU that is stopped does not answer, which is said; continued, it does; stopped again, it can be deleted", async () => {
    const id = await running();
    const { qemu } = processesOf(id);
    process.kill(qemu, "SIGSTOP");
    await expect(attachVm(id, { answerMs: 2000 })).rejects.toMatchObject({ code: "GUEST_LOST", message: `The VM ${id} did not answer within 2 s.` });
    process.kill(qemu, "SIGCONT");
    expect((await exec(id, "echo", "back")).stdout).toBe("back\n");
    process.kill(qemu, "SIGSTOP");
    expect(await sdk.deleteVm(id)).toEqual({ vmId: id, deleted: true });
    expect(await eventually(() => !isAlive(qemu))).toBe(true);
  });

  test("a start that fails leaves a created VM failed and a stopped one stopped, with its files", async () => {
    const [fresh, kept] = [await created(), await running()];
    await exec(kept, "sh", "-c", "echo here > /root/file");
    await sdk.stopVm(kept);
    for (const [id, state] of [[fresh, "failed"], [kept, "stopped"]] as const) {
      expect(await pyro(["vm", "start", id], { env: { PYRO_QEMU: "/nonexistent/qemu" } })).toMatchObject({ status: 1, stderr: expect.stringContaining("/nonexistent/qemu") });
      expect(await sdk.statusVm(id)).toMatchObject({ state });
    }
    await sdk.startVm(kept);
    expect((await exec(kept, "cat", "/root/file")).stdout).toBe("here\n");
  });
});

test.each([["run", ["run", environment, "--mem-mib", "256", "--", "sh", "-c", "echo go; sleep 100"]]] as const)("the VM of `%s` ends with its owner, killed", async (_name, words) => {
  const child = startPyro([...words]);
  await new Promise((resolve) => child.stdout!.once("data", resolve));
  child.kill("SIGKILL");
  expect(await leftForGood(home)).toEqual([]);
});

describe("the SDK", () => {
  test("`await using` closes", async () => {
    {
      await using own = await sdk.openVm({ environment, memMib: 256 });
      expect((await own.exec("echo $0")).stdout).toMatch(/sh|bash/);
      expect(await sdk.listVms()).toEqual([]);
    }
    expect(await eventually(() => !processesWith(home).some((line) => line.includes(" keep ")))).toBe(true);
  });

  test("a signal ends each long call", async () => {
    const id = await running();
    const soon = (ms: number) => AbortSignal.timeout(ms);
    await expect(sdk.runInVm({ environment, memMib: 256, command: "sleep 60", timeoutSeconds: 60, signal: soon(1500) })).rejects.toMatchObject({ code: "CANCELLED" });
    // No QEMU is up, let alone a guest, after so short a time.
    await expect(sdk.openVm({ environment, memMib: 256, signal: soon(15) })).rejects.toMatchObject({ code: "CANCELLED" });
    const other = await created();
    await expect(sdk.startVm(other, { signal: soon(15) })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await sdk.statusVm(other)).toMatchObject({ state: "created" });
    await using shared = await sdk.connectVm(id);
    await expect(shared.exec("sleep 60", { signal: soon(300) })).rejects.toMatchObject({ code: "CANCELLED" });
    expect((await shared.exec("echo still")).stdout).toBe("still\n");
    const process = shared.spawn("sleep 60", { signal: soon(300) });
    await expect(process.exit).rejects.toMatchObject({ code: "CANCELLED" });
    const stop = new AbortController();
    const only = sdk.execVm(id, { command: "touch /root/begun; sleep 600", timeoutSeconds: 600, signal: stop.signal });
    only.catch(() => {});
    expect(await eventually(async () => (await shared.exec("test -e /root/begun")).exitCode === 0)).toBe(true);
    stop.abort();
    await expect(only).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(sdk.statusVm(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("what goes in comes out, 100 MB of it, by a reader that dawdles, in bounded memory", async () => {
    await using own = await sdk.openVm({ environment, memMib: 256, ttlSeconds: 3000 });
    const echo = own.spawn(["cat"], { stdin: true, timeoutSeconds: 1200 });
    const [block, blocks] = [Buffer.alloc(1 << 20, "pyro "), 100];
    const wanted = createHash("sha256");
    for (let n = 0; n < blocks; n++) wanted.update(block);
    Readable.from((function* () {
      for (let n = 0; n < blocks; n++) yield block;
    })()).pipe(echo.stdin!);
    const before = process.memoryUsage().rss;
    let [most, total] = [0, 0];
    const got = createHash("sha256");
    for await (const chunk of echo.stdout as AsyncIterable<Buffer>) {
      got.update(chunk);
      if (total >> 24 !== (total + chunk.length) >> 24) await new Promise((resolve) => setTimeout(resolve, 100));
      total += chunk.length;
      most = Math.max(most, process.memoryUsage().rss - before);
    }
    expect(await echo.exit).toMatchObject({ exitCode: 0, stdoutBytes: 104_857_600 });
    expect(got.digest("hex")).toBe(wanted.digest("hex"));
    expect(most).toBeLessThan(80 << 20);
  });

  test("signals end a command, and its time ends all that it started", async () => {
    await using own = await sdk.openVm({ environment, memMib: 256 });
    for (const [signal, exitCode] of [["SIGTERM", 143], ["SIGKILL", 137], ["SIGINT", 130], ["SIGHUP", 129], ["SIGUSR1", 138]] as const) {
      const command = own.spawn(["sleep", "100"]);
      await command.started;
      command.kill(signal);
      expect(await command.exit).toMatchObject({ exitCode, signal, timedOut: false });
    }
    const daemon = own.spawn("setsid sh -c 'trap \"\" TERM HUP; (sleep 4321 &) ; sleep 4321' & sleep 4321", { timeoutSeconds: 1 });
    expect(await daemon.exit).toMatchObject({ timedOut: true, exitCode: 137 });
    expect((await own.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep[ ]4321' || true")).stdout).toBe("0\n");
  });

  test("a command that left a child behind is over when it is", async () => {
    await using own = await sdk.openVm({ environment, memMib: 256 });
    expect(await own.exec("sleep 200 & echo over", { timeoutSeconds: 60 })).toMatchObject({ stdout: "over\n", timedOut: false, exitCode: 0 });
  });
});

describe("what a user would expect of one VM", () => {
  test("a command that closes its outputs goes on to its own end", async () => {
    await using own = await sdk.openVm({ environment, memMib: 256 });
    expect(await own.exec("exec >&- 2>&-; sleep 1; exit 5")).toMatchObject({ exitCode: 5, stdout: "", stderr: "" });
  });

  // More than 32 bits count; PYRO_FLOOD_GB=10 for as much as somebody may want.
  const floodBytes = Number(process.env["PYRO_FLOOD_GB"] ?? 4.3) * 1e9;

  test("one that floods: every byte is counted, head and tail are kept, memory is bounded", { timeout: 1_200_000 }, async () => {
    await using own = await sdk.openVm({ environment, memMib: 256, ttlSeconds: 3600 });
    const before = process.memoryUsage().rss;
    const result = await own.exec(`echo head; head -c ${floodBytes} /dev/zero; echo tail`, { timeoutSeconds: 1200, captureBytes: 4096 });
    expect(result).toMatchObject({ exitCode: 0, stdoutBytes: floodBytes + 10, stdoutTruncated: true });
    expect([result.stdout.slice(0, 5), result.stdout.slice(-5)]).toEqual(["head\n", "tail\n"]);
    expect(process.memoryUsage().rss - before).toBeLessThan(80 << 20);
  });

  test("one that ignores every signal is timed out", async () => {
    await using own = await sdk.openVm({ environment, memMib: 256 });
    expect(await own.exec("for n in $(seq 1 64); do trap '' $n 2>/dev/null; done; while :; do sleep 1; done", { timeoutSeconds: 2 })).toMatchObject({ timedOut: true, exitCode: 137 });
    expect((await own.exec("echo next")).stdout).toBe("next\n");
  });

  test("1,000 short commands in a row, and 64 at once", { timeout: 3_600_000 }, async () => {
    await using own = await sdk.openVm({ environment, memMib: 256, ttlSeconds: 6000 });
    for (let n = 0; n < 1000; n++) expect((await own.exec(["echo", String(n)])).stdout).toBe(`${n}\n`);
    const all = await Promise.all(Array.from({ length: 64 }, (_, n) => own.exec(["sh", "-c", `sleep 0.2; echo ${n}`], { timeoutSeconds: 1200 })));
    expect(all.map((each) => each.stdout)).toEqual(Array.from({ length: 64 }, (_, n) => `${n}\n`));
  });
});
