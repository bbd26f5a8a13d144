// What is true of VMs: records, places and real keepers, with a program in the guest's stead that does nothing.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import type { Duplex } from "node:stream";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { nativeProgram } from "../../../src/base/paths.js";
import { deleteVm } from "../../../src/core/vms/delete.js";
import { execVm } from "../../../src/core/vms/exec.js";
import { reapExpired } from "../../../src/core/vms/reap.js";
import { readVmRecord, writeVmRecord, type VmRecord } from "../../../src/core/vms/record.js";
import { startVm } from "../../../src/core/vms/start.js";
import { statsVm } from "../../../src/core/vms/stats.js";
import { listVms, statusVm, vmLogs } from "../../../src/core/vms/status.js";
import { networkInfoVm } from "../../../src/core/vms/network.js";
import { stopVm } from "../../../src/core/vms/stop.js";
import { environmentsOfVms } from "../../../src/core/vms/needed.js";
import { lookAt, tryVmLock } from "../../../src/core/vms/store.js";
import { findVm, hostBootId, hostUptimeMs } from "../../../src/vmm/index.js";

let state: string;
const started: ChildProcess[] = [];
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), "pyro-store-test-"));
  process.env["XDG_STATE_HOME"] = state;
});
afterEach(async () => {
  for (const each of started.splice(0)) {
    each.kill("SIGKILL");
    if (each.exitCode === null && each.signalCode === null) await new Promise((resolve) => each.once("exit", resolve));
  }
  delete process.env["XDG_STATE_HOME"];
  rmSync(state, { recursive: true, force: true });
});

const id = "vm-abcd2345";
const directoryOf = (vmId = id) => join(state, "pyro-mcp", "vms", vmId);
const here = (directory: string) => readdirSync(join(state, "pyro-mcp", directory)).sort();

async function recorded(changes: Partial<VmRecord> = {}): Promise<VmRecord> {
  const record: VmRecord = {
    vmId: id,
    environment: "debian:12",
    state: "started",
    vcpuCount: 1,
    memMib: 1024,
    diskMib: 10_240,
    ttlSeconds: 600,
    createdAt: new Date().toISOString(),
    expiresAt: new Date(Date.now() + 600_000).toISOString(),
    networkEnabled: false,
    executionMode: "guest",
    accelerator: "tcg",
    allowHostCompat: false,
    hostBootId: await hostBootId(),
    expiresAtUptimeMs: (await hostUptimeMs()) + 599_000,
    ...changes,
  };
  mkdirSync(directoryOf(record.vmId), { recursive: true, mode: 0o700 });
  mkdirSync(join(state, "pyro-mcp", "vm-locks"), { recursive: true });
  await writeVmRecord(directoryOf(record.vmId), record);
  return record;
}

/** A keeper that was let go of, with a program instead of QEMU. */
async function running(vmId = id, program = ["/bin/sleep", "1000"], release = true): Promise<ChildProcess> {
  const child = spawn(nativeProgram("pyro-keeper"), ["keep", "--lifeline", "3", "--grace-ms", "0", "--place", directoryOf(vmId), "--", ...program], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  started.push(child);
  const lifeline = (child.stdio[3] as Duplex).on("error", () => {});
  if (release) lifeline.end("r");
  for (;;) {
    const found = await findVm(directoryOf(vmId));
    if (found !== undefined) {
      await found.usage(); // it answers once its program runs; killed before that, its copy in the fork would live a moment longer
      found.release();
      return child;
    }
    await pause(10);
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const gone = (child: ChildProcess) => new Promise((resolve) => (child.exitCode === null && child.signalCode === null ? child.once("exit", resolve) : resolve(undefined)));

test("what waits for a keeper that is stopped can be broken off", async () => {
  await recorded();
  const keeper = await running();
  keeper.kill("SIGSTOP");
  const signal = AbortSignal.timeout(200);
  // Otherwise TIMEOUT, after 30 s.
  await Promise.all([statsVm(id, { signal }), execVm(id, { command: "true" }, { signal })].map((ask) => expect(ask).rejects.toMatchObject({ code: "CANCELLED" })));
});

test("looking at a VM that runs begins nothing that goes on, or that could fail with nobody there", async () => {
  await recorded();
  await running();
  symlinkSync("exit", join(directoryOf(), "exit")); // can't be read, as where there are no descriptors left
  const lost: unknown[] = [];
  const listen = (error: unknown) => void lost.push(error);
  process.on("unhandledRejection", listen);
  expect(await statusVm(id)).toMatchObject({ state: "started" });
  await pause(300);
  process.off("unhandledRejection", listen);
  expect(lost).toEqual([]);
});

test("which environments VMs need: those that their disks were written over", async () => {
  expect(await environmentsOfVms()).toEqual(new Map());
  const digest = (of: string) => `sha256:${of.repeat(64)}`;
  await recorded({ vmId: "vm-aaaa2222", state: "stopped", environmentDigest: digest("a") });
  await recorded({ vmId: "vm-bbbb2222", state: "created" });
  await recorded({ vmId: "vm-cccc2222", state: "failed", environmentDigest: digest("c") });
  await recorded({ vmId: "vm-dddd2222", state: "stopped", environmentDigest: digest("d"), expiresAtUptimeMs: 1 });
  await recorded({ vmId: "vm-eeee2222", environmentDigest: digest("e") });
  await running("vm-eeee2222");
  await recorded({ vmId: "vm-ffff2222", state: "stopped" });
  writeFileSync(join(directoryOf("vm-ffff2222"), "vm.json"), '{"state": '); // no pyro's
  expect(await environmentsOfVms()).toEqual(new Map([[digest("a"), "vm-aaaa2222"], [digest("e"), "vm-eeee2222"]]));
  // What it needs would be taken from it otherwise.
  writeFileSync(join(directoryOf("vm-ffff2222"), "vm.json"), '{"schema_version": 99}');
  await expect(environmentsOfVms()).rejects.toMatchObject({ code: "UNSUPPORTED", message: "No environment is removed, as it is not known which one the VM vm-ffff2222 needs: The VM's record is in format 99, of a newer pyro; this one knows 1.", hint: "Use that pyro, or update this one." });
  rmSync(directoryOf("vm-ffff2222"), { recursive: true });
  symlinkSync("vm-ffff2222", directoryOf("vm-ffff2222")); // can't be read now
  await expect(environmentsOfVms()).rejects.toMatchObject({ code: "DENIED" });
});

describe("what can't be asked for", () => {
  test.each([
    { env: { "A=B": "x" } },
    { env: { A: "\0" } },
    { cwd: "/\0" },
    { cwd: 5 as unknown as string },
    { user: "" },
    { timeoutSeconds: 0 },
  ])("as the one command, %j costs no VM", async (wrong) => {
    await recorded();
    const keeper = await running();
    await expect(execVm(id, { command: "true", ...wrong })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await statusVm(id)).toMatchObject({ state: "started" });
    expect(keeper.exitCode).toBe(null);
  });

  test.each([undefined, null, 5, {}])("%j is no id", async (vmId) => {
    const notAnId = { code: "INVALID_ARGUMENT", message: "A VM's id is a string." };
    for (const ask of [statusVm, startVm, stopVm, deleteVm]) await expect(ask(vmId as unknown as string)).rejects.toMatchObject(notAnId);
  });

  test("nothing is looked up for a caller who does not want it any more", async () => {
    await recorded();
    const options = { signal: AbortSignal.abort() };
    for (const ask of [statusVm(id, options), listVms(options), statsVm(id, options), vmLogs(id, undefined, options), networkInfoVm(id, options)]) await expect(ask).rejects.toMatchObject({ code: "CANCELLED" });
  });
});

describe("what is true of a VM whose record says that it runs", () => {
  test("it runs where its keeper answers", async () => {
    await recorded();
    await running();
    expect(await statusVm(id)).toMatchObject({ vmId: id, state: "started" });
  });

  test.each([
    ["asked 137\n", "stopped", undefined],
    ["maker 137\n", "stopped", undefined],
    ["program 0\n", "stopped", undefined],
    ["program 1\n", "failed", "its monitor ended with status 1"],
    ["program 137\n", "failed", "its monitor ended with status 137"],
    ["signal 137\n", "failed", "its keeper was told to end"],
    ["what?\n", "failed", "its keeper was killed"],
    [undefined, "failed", "its keeper was killed"],
    ["ttl 137\n", "gone", undefined],
    ["owner 137\n", "gone", undefined],
  ])("after %j it is %s", async (exit, wanted, why) => {
    await recorded();
    if (exit !== undefined) writeFileSync(join(directoryOf(), "exit"), exit);
    if (wanted === "gone") {
      await expect(statusVm(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
      expect(await reapExpired()).toEqual({ reaped: [id] });
      expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
      return;
    }
    const vm = await statusVm(id);
    expect([vm.state, vm.lastError]).toEqual([wanted, why]);
    expect((await readVmRecord(directoryOf()))!.state).toBe("started"); // looking changes nothing
    expect(await reapExpired()).toEqual({ reaped: [] });
    expect(await readVmRecord(directoryOf())).toMatchObject({ state: wanted, ...(why !== undefined && { lastError: why }) });
    expect(await statusVm(id)).toEqual(vm);
  });

  test("its keeper killed, it failed", async () => {
    await recorded();
    const keeper = await running();
    keeper.kill("SIGKILL");
    await gone(keeper);
    expect(await statusVm(id)).toMatchObject({ state: "failed", lastError: "its keeper was killed" });
    await expect(startVm(id)).rejects.toMatchObject({ code: "INVALID_STATE", message: `The VM ${id} failed: its keeper was killed.` });
    await expect(stopVm(id)).rejects.toMatchObject({ code: "INVALID_STATE" });
    expect(await deleteVm(id)).toEqual({ vmId: id, deleted: true });
    expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
  });

  test("after another boot of the host it failed, whatever its exit says", async () => {
    await recorded({ hostBootId: "11111111-2222-3333-4444-555555555555" });
    writeFileSync(join(directoryOf(), "exit"), "program 0\n");
    expect(await statusVm(id)).toMatchObject({ state: "failed", lastError: "the host was booted again" });
  });
});

describe("time", () => {
  test.each([["created"], ["started"], ["stopped"], ["failed"]] as const)("one that is %s is gone when its time is over, and nothing that ran is left", async (which) => {
    await recorded({ state: which, expiresAtUptimeMs: (await hostUptimeMs()) - 1 });
    const keeper = which === "started" ? await running() : undefined;
    await expect(statusVm(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await reapExpired()).toEqual({ reaped: [id] });
    if (keeper !== undefined) await gone(keeper);
    expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
  });

  test("the wall clock neither kills a VM nor keeps it", async () => {
    for (const [wall, uptime, isThere] of [[-1e9, 500_000, true], [1e12, 500_000, true], [-1e9, -1, false], [1e12, -1, false]] as const) {
      await recorded({ state: "created", expiresAt: new Date(Date.now() + wall).toISOString(), expiresAtUptimeMs: (await hostUptimeMs()) + uptime });
      expect(typeof (await lookAt(id)) === "object", `${wall} ${uptime}`).toBe(isThere);
    }
  });

  test("after another boot of the host what is left is counted on its clock from the first look on", async () => {
    await recorded({ state: "stopped", hostBootId: "11111111-2222-3333-4444-555555555555", expiresAtUptimeMs: 9e12, expiresAt: new Date(Date.now() + 300_000).toISOString() });
    expect(await reapExpired()).toEqual({ reaped: [] });
    const record = (await readVmRecord(directoryOf()))!;
    expect(record).toMatchObject({ state: "stopped", hostBootId: await hostBootId() });
    const left = record.expiresAtUptimeMs - (await hostUptimeMs());
    expect(left).toBeGreaterThan(200_000);
    expect(left).toBeLessThanOrEqual(300_000);
    await recorded({ state: "stopped", hostBootId: "11111111-2222-3333-4444-555555555555", expiresAt: new Date(Date.now() - 1).toISOString() });
    expect(await reapExpired()).toEqual({ reaped: [id] });
  });
});

describe("reap", () => {
  test("ten at once clear away once, and leave nothing", async () => {
    const ids = Array.from({ length: 6 }, (_, n) => `vm-0000000${n}`);
    for (const vmId of ids) {
      await recorded({ vmId, expiresAtUptimeMs: (await hostUptimeMs()) - 1 });
      await running(vmId);
    }
    const results = await Promise.all(Array.from({ length: 10 }, () => reapExpired()));
    expect(results.flatMap((each) => each.reaped).sort()).toEqual(ids);
    expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
    await Promise.all(started.map(gone));
  });

  test("what a crash left half made goes, what is not ours stays", async () => {
    await recorded({ vmId: "vm-good0000", state: "created" });
    const vms = join(state, "pyro-mcp", "vms");
    for (const [name, content] of [["vm-empty000", undefined], ["vm-zero0000", ""], ["vm-garbage0", "{]"], ["vm-other000", readFileSync(join(vms, "vm-good0000", "vm.json"), "utf8")]] as const) {
      mkdirSync(join(vms, name));
      if (content !== undefined) writeFileSync(join(vms, name, "vm.json"), content);
      writeFileSync(join(vms, name, "scratch"), "x");
    }
    writeFileSync(join(vms, "vm-file0000"), "a file");
    mkdirSync(join(vms, "vm-dir00000", "vm.json", "x"), { recursive: true });
    mkdirSync(join(vms, "vm-toolong000"));
    mkdirSync(join(vms, "lost+found"));
    writeFileSync(join(vms, "README"), "");
    for (const name of ["vm-lonely00", "vm-empty000", "other"]) writeFileSync(join(state, "pyro-mcp", "vm-locks", name), "");
    expect(await reapExpired()).toEqual({ reaped: [] }); // none that ever was a VM
    expect(here("vms")).toEqual(["README", "lost+found", "vm-good0000", "vm-toolong000"]);
    expect(here("vm-locks")).toEqual(["other"]);
    expect((await listVms()).map((each) => each.vmId)).toEqual(["vm-good0000"]);
  });

  test("a directory without a record in which something runs: it ends", async () => {
    mkdirSync(directoryOf(), { recursive: true });
    const keeper = await running();
    expect(await reapExpired()).toEqual({ reaped: [] });
    await gone(keeper);
    expect(here("vms")).toEqual([]);
  });

  test("sockets that a killed keeper left are no VM", async () => {
    await recorded({ state: "started", expiresAtUptimeMs: (await hostUptimeMs()) - 1 });
    const keeper = await running();
    keeper.kill("SIGKILL");
    await gone(keeper);
    expect(readdirSync(directoryOf())).toContain("control");
    expect(await reapExpired()).toEqual({ reaped: [id] });
    expect(here("vms")).toEqual([]);
  });

  test("a newer pyro's VM is left alone, also by those who ask for it, and runs on", async () => {
    await recorded();
    const keeper = await running();
    const file = join(directoryOf(), "vm.json");
    writeFileSync(file, readFileSync(file, "utf8").replace('"schema_version": 1', '"schema_version": 2'));
    expect(await reapExpired()).toEqual({ reaped: [] });
    for (const verb of [statusVm, startVm, stopVm, deleteVm]) await expect(verb(id)).rejects.toMatchObject({ code: "UNSUPPORTED", hint: "Use that pyro, or update this one." });
    await expect(execVm(id, { command: "true" })).rejects.toMatchObject({ code: "UNSUPPORTED" });
    expect(await listVms()).toEqual([]);
    expect(keeper.exitCode).toBe(null);
    expect(existsSync(file)).toBe(true);
  });

  test("a record that can't be read now is left alone", async () => {
    await recorded();
    await running();
    rmSync(join(directoryOf(), "vm.json"));
    symlinkSync("vm.json", join(directoryOf(), "vm.json"));
    expect(await reapExpired()).toEqual({ reaped: [] });
    expect(here("vms")).toEqual([id]);
  });

  test("one that failed, and was written down, costs nothing any more", async () => {
    await recorded({ state: "failed", lastError: "x" });
    const before = execFileSync("stat", ["-c", "%i %y", join(directoryOf(), "vm.json")]).toString();
    await reapExpired();
    expect(execFileSync("stat", ["-c", "%i %y", join(directoryOf(), "vm.json")]).toString()).toBe(before);
    expect(here("vm-locks")).toEqual([]);
  });

  test("on a full disk what is over still goes, and what is true is still told", async ({ skip }) => {
    const place = join(state, "pyro-mcp");
    mkdirSync(place);
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", place], { stdio: "ignore" });
    } catch {
      return skip("no file system can be mounted here");
    }
    try {
      await recorded({ vmId: "vm-over0000", expiresAtUptimeMs: (await hostUptimeMs()) - 1 });
      await recorded({ vmId: "vm-killed00" });
      await recorded({ vmId: "vm-stop0000" });
      await recorded({ vmId: "vm-fresh000", state: "created" });
      await running("vm-over0000");
      await running("vm-stop0000");
      expect(() => writeFileSync(join(place, "filler"), Buffer.alloc(2 << 20))).toThrow(/ENOSPC/);
      await expect(stopVm("vm-stop0000")).rejects.toMatchObject({ name: "PyroError", code: "DISK_FULL" });
      expect(await reapExpired()).toEqual({ reaped: ["vm-over0000"] });
      expect((await listVms()).map((each) => [each.vmId, each.state]).sort()).toEqual([["vm-fresh000", "created"], ["vm-killed00", "failed"], ["vm-stop0000", "stopped"]]);
      rmSync(join(place, "filler"));
      expect(await reapExpired()).toEqual({ reaped: [] });
      expect(await readVmRecord(directoryOf("vm-stop0000"))).toMatchObject({ state: "stopped" });
      for (const vmId of ["vm-fresh000", "vm-killed00", "vm-stop0000"]) await deleteVm(vmId);
      expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
    } finally {
      execFileSync("umount", ["--lazy", place]);
    }
  });
});

describe("verbs at once", () => {
  test("a stop while another caller's one command runs: the VM is gone, not stopped", async () => {
    await recorded();
    const keeper = await running();
    const owner = (await findVm(directoryOf()))!;
    expect(await owner.own()).toBe(true);
    await expect(stopVm(id)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await gone(keeper);
    expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
  });

  test("the second one command is refused while the first one runs", async () => {
    await recorded();
    await running();
    const owner = (await findVm(directoryOf()))!;
    expect(await owner.own()).toBe(true);
    await expect(execVm(id, { command: "true" })).rejects.toMatchObject({ code: "INVALID_STATE", message: `The VM ${id} runs its one command already, for another caller.` });
    await owner.end();
    await expect(execVm(id, { command: "true" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("a start that can't end what a broken-off one left has not failed: the VM is as it was", async () => {
    const record = await recorded({ state: "created" });
    symlinkSync("control", join(directoryOf(), "control")); // asked to end by a way that leads nowhere
    await expect(startVm(id)).rejects.toMatchObject({ message: expect.stringContaining("ELOOP") as string });
    expect(await readVmRecord(directoryOf())).toEqual(record);
  });

  test("a call that was cancelled before it began ends nothing", async () => {
    await recorded();
    const keeper = await running();
    const signal = AbortSignal.abort();
    await expect(execVm(id, { command: "true" }, { signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(stopVm(id, { signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(deleteVm(id, { signal })).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(startVm(id, { signal })).rejects.toMatchObject({ code: "CANCELLED" });
    expect(keeper.exitCode).toBe(null);
    expect(await statusVm(id)).toMatchObject({ state: "started" });
  });

  test("an id that is not quite right gives the nearest, one that is none does no harm", async () => {
    await recorded({ vmId: "vm-k3v9x2mq", state: "created" });
    await expect(statusVm("vm-k3v9x2mp")).rejects.toMatchObject({ code: "NOT_FOUND", hint: "Did you mean vm-k3v9x2mq?" });
    for (const none of ["", ".", "..", "../vms", "vm-k3v9x2mq/", "/etc", "vm-\0", "x".repeat(100_000)]) {
      await expect(deleteVm(none)).rejects.toMatchObject({ code: "NOT_FOUND" });
    }
    expect(here("vms")).toEqual(["vm-k3v9x2mq"]);
  });

  test("who looks while it is deleted never sees it as failed", async () => {
    const seen = new Set<string>();
    for (let round = 0; round < 10; round++) {
      await recorded();
      await running();
      let isOver = false;
      const looks = Array.from({ length: 4 }, async () => {
        while (!isOver) seen.add(await statusVm(id).then((vm) => vm.state, (error: { code: string }) => error.code));
      });
      await deleteVm(id).finally(() => (isOver = true));
      await Promise.all(looks);
    }
    // Ended and not removed yet, it is stopped.
    expect([...seen].filter((each) => !["started", "stopped", "NOT_FOUND"].includes(each))).toEqual([]);
  });

  test("who deletes a VM does not wait for its guest, though it is being stopped, for which a guest has minutes", async () => {
    await recorded();
    const keeper = await running();
    const stopping = (await tryVmLock(id))!;
    const deleting = deleteVm(id);
    await gone(keeper);
    await stopping.release();
    expect(await deleting).toEqual({ vmId: id, deleted: true });
    expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
  });

  test("many that delete one VM at once: one did it, the others hear that there is none", async () => {
    await recorded();
    await running();
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => deleteVm(id)));
    expect(results.filter((each) => each.status === "fulfilled").length).toBe(1);
    for (const each of results) if (each.status === "rejected") expect(each.reason).toMatchObject({ code: "NOT_FOUND" });
    expect([here("vms"), here("vm-locks")]).toEqual([[], []]);
  });
});
