// Files, trees and background jobs of a real VM, through the SDK and the command line.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Vm } from "../../src/index.js";
import { eventually, pyro } from "./pyro.js";

const { Pyro } = (await import(new URL("../../dist/index.js", import.meta.url).pathname)) as typeof import("../../src/index.js");

let directory: string;
let vm: Vm;
let vmId: string;
const at = (...names: string[]) => join(directory, ...names);

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pyro-copy-vm-"));
  const sdk = new Pyro();
  vmId = (await sdk.createVm({ environment: "debian:12-base", memMib: 512, ttlSeconds: 1200 })).vmId;
  await sdk.startVm(vmId);
  vm = await sdk.connectVm(vmId);
});
afterAll(async () => {
  await vm.close();
  await new Pyro().deleteVm(vmId);
  rmSync(directory, { recursive: true, force: true });
});

/** Type, mode, links, size, target and digest of all below a directory. */
function describeTree(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      const name = path.slice(root.length + 1);
      if (entry.isSymbolicLink()) return `${name} -> ${readlinkSync(path)}`;
      const { mode, nlink, mtimeMs } = statSync(path);
      const content = entry.isFile() ? createHash("sha256").update(readFileSync(path)).digest("hex") : "";
      return `${name} ${entry.isFile() ? "f" : "d"} ${(mode & 0o777).toString(8)} ${entry.isFile() ? nlink : ""} ${Math.floor(mtimeMs)} ${content}`;
    })
    .sort();
}

test("a tree goes in and comes out as it was", async () => {
  mkdirSync(at("tree", "deep", "er"), { recursive: true });
  mkdirSync(at("tree", "empty"));
  writeFileSync(at("tree", "deep", "big"), Buffer.alloc(20 << 20, "0123456789abcdef"));
  writeFileSync(at("tree", "deep", "script"), "#!/bin/sh\necho ran\n", { mode: 0o755 });
  writeFileSync(at("tree", "ümlaut and space"), "");
  linkSync(at("tree", "deep", "script"), at("tree", "hard"));
  symlinkSync("deep/script", at("tree", "soft"));
  symlinkSync("/nowhere", at("tree", "dangling"));
  execFileSync("truncate", ["-s", "300M", at("tree", "sparse")]);
  chmodSync(at("tree", "empty"), 0o555);
  utimesSync(at("tree", "deep", "er"), 1_000_000_000, 1_000_000_000);
  const progress: number[] = [];
  const into = await vm.copyIn(at("tree"), "/root", { onProgress: ({ entries }) => progress.push(entries) });
  expect(into).toMatchObject({ destination: "/root/tree", entries: 11, skipped: 0 });
  expect(progress.length).toBeGreaterThan(0);
  expect((await vm.exec("cd /root/tree && ./soft && stat -c '%h %a' hard && stat -c %Y deep/er && du -m sparse | cut -f1")).stdout).toBe("ran\n2 755\n1000000000\n0\n");
  expect((await vm.copyOut("/root/tree", at("back"))).entries).toBe(11);
  expect(describeTree(at("back"))).toEqual(describeTree(at("tree")));
  expect(statSync(at("back", "sparse")).blocks).toBeLessThan(2000);
});

test("what is there is not replaced unasked, in both directions", async () => {
  writeFileSync(at("one"), "first");
  await vm.copyIn(at("one"), "/root/one");
  writeFileSync(at("one"), "second");
  await expect(vm.copyIn(at("one"), "/root/one")).rejects.toMatchObject({ code: "EXISTS", message: "/root/one is there already, in the VM." });
  await expect(vm.copyOut("/dev/zero", at("zero"))).rejects.toMatchObject({ code: "INVALID_ARGUMENT", message: "/dev/zero is a device or a socket, which can't be copied." });
  await vm.copyIn(at("one"), "/root/one", { replace: true });
  expect((await vm.files.read("/root/one")).toString()).toBe("second");
  writeFileSync(at("here"), "mine");
  await expect(vm.copyOut("/root/one", at("here"))).rejects.toMatchObject({ code: "EXISTS" });
  expect(readFileSync(at("here"), "utf8")).toBe("mine");
  await expect(vm.copyOut("/root/none", at("none"))).rejects.toMatchObject({ code: "NOT_FOUND", message: "/root/none is not there, in the VM.", hint: `\`pyro vm exec ${vmId} -- ls /root\` shows what is.` });
  await expect(vm.copyOut("/root/one", at("none", "one"))).rejects.toMatchObject({ code: "NOT_FOUND", message: `The directory ${at("none")} is not there.`, hint: "Make it, or give another destination." });
  await expect(vm.copyIn(at("one"), "/root/none/one")).rejects.toMatchObject({ code: "NOT_FOUND", message: "The directory /root/none is not there, in the VM.", hint: "Give --parents (makeParents) to have it made, or another destination." });
  await expect(vm.copyIn(at("no such"), "/root/x")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

test("a copy broken off leaves nothing on either side", async () => {
  const stop = new AbortController();
  const broken = vm.copyIn(at("tree"), "/root/broken", { signal: stop.signal, onProgress: ({ contentBytes }) => contentBytes > 4 << 20 && stop.abort() });
  await expect(broken).rejects.toMatchObject({ code: "CANCELLED" });
  expect((await vm.exec("ls -A /root")).stdout).not.toMatch(/broken|pyro-/);
  const stopOut = new AbortController();
  const out = vm.copyOut("/root/tree", at("broken"), { signal: stopOut.signal, onProgress: ({ contentBytes }) => contentBytes > 4 << 20 && stopOut.abort() });
  await expect(out).rejects.toMatchObject({ code: "CANCELLED" });
  expect(readdirSync(directory).filter((name) => name.startsWith("broken"))).toEqual([]);
});

test("a guest's links lead nowhere on the host, and its root owns nothing here", async () => {
  writeFileSync(at("victim"), "untouched");
  await vm.exec(`mkdir /root/evil && ln -s ${at("victim")} /root/evil/link && cp /bin/true /root/evil/suid && chmod 4755 /root/evil/suid && chown 1234:1234 /root/evil/suid && mkfifo /root/evil/fifo && mknod /root/evil/null c 1 3`);
  const copied = await vm.copyOut("/root/evil", at("evil"));
  expect(copied.skipped).toBe(2);
  expect(readdirSync(at("evil")).sort()).toEqual(["link", "suid"]);
  expect(readFileSync(at("victim"), "utf8")).toBe("untouched");
  const { mode, uid } = statSync(at("evil", "suid"));
  expect([mode & 0o7777, uid]).toEqual([0o755, process.getuid!()]);
});

test("pyro cp", async () => {
  writeFileSync(at("note"), "by cp");
  const into = await pyro(["cp", at("note"), `${vmId}:/srv/a/b/note`, "--parents"]);
  expect([into.status, into.stderr]).toEqual([0, '[cp] destination="/srv/a/b/note" entries=1 bytes=5 skipped=0\n']);
  const out = await pyro(["cp", `${vmId}:/srv/a`, at("a"), "--json"]);
  expect(JSON.parse(out.stdout)).toEqual({ destination: at("a"), entries: 3, content_bytes: 5, skipped: 0 });
  expect(readFileSync(at("a", "b", "note"), "utf8")).toBe("by cp");
  const neither = await pyro(["cp", at("note"), at("other")]);
  expect([neither.status, neither.stderr.includes("Exactly one of source and destination")]).toEqual([2, true]);
  expect(existsSync(at("other"))).toBe(false);
});

test("a user and a directory that are not in the guest: what to give instead", async () => {
  await expect(vm.exec("true", { user: "nobody-here" })).rejects.toMatchObject({ code: "INVALID_STATE", hint: "The command was not run. Give a --user (user) of the guest's /etc/passwd, or a number." });
  await expect(vm.exec("true", { cwd: "/none" })).rejects.toMatchObject({ code: "INVALID_STATE", hint: "The command was not run. Give a --workdir (cwd) that is there." });
});

test("files one by one", async () => {
  const { files } = vm;
  await files.makeDirectory("/srv/files/x", { makeParents: true });
  await files.write("/srv/files/f", "one\n", { mode: 0o600 });
  await files.append("/srv/files/f", "two\n");
  expect((await files.read("/srv/files/f")).toString()).toBe("one\ntwo\n");
  await files.chmod("/srv/files/f", 0o640);
  expect(await files.stat("/srv/files/f")).toMatchObject({ type: "file", mode: 0o640, sizeBytes: 8n });
  await files.rename("/srv/files/f", "/srv/files/g");
  await files.makeLink("/srv/files/l", "g");
  expect((await files.list("/srv/files")).map((each) => `${each.name.toString()} ${each.stat.type}`).sort()).toEqual(["g file", "l link", "x directory"]);
  await files.remove("/srv/files", { recursive: true });
  await expect(files.stat("/srv/files")).rejects.toMatchObject({ code: "NOT_FOUND" });
  await expect(files.read("/etc/passwd", { maxBytes: 10 })).rejects.toMatchObject({ code: "INVALID_STATE" });
});

test("a copy out of a VM and an export that are killed leave nothing", async () => {
  mkdirSync(at("killed"));
  await vm.exec("head -c 300000000 /dev/zero > /root/large");
  for (const args of [["cp", `${vmId}:/root/large`, at("killed", "large")], ["cp", "--force", `${vmId}:/root`, at("killed", "root")], ["env", "export", "debian:12-base", at("killed", "exported")]]) {
    const killed = await pyro(args, {
      onStart: (child) => {
        // Once there is something of it.
        const timer = setInterval(() => {
          const begun = readdirSync(at("killed"), { recursive: true, encoding: "utf8" }).filter((name) => name.startsWith(".pyro-"));
          if (begun.length > 1) child.kill("SIGKILL");
        }, 2);
        child.once("exit", () => clearInterval(timer));
      },
    });
    expect([args, killed.signal]).toEqual([args, "SIGKILL"]);
    expect([args, await eventually(() => readdirSync(at("killed")).length === 0), readdirSync(at("killed"))]).toEqual([args, true, []]);
  }
  await vm.exec("rm /root/large");
});

test("a job outlives whoever started it, is found again, attached to and killed", async () => {
  const started = await pyro(["vm", "exec", vmId, "--detach", "--job", "counter", "--", "sh", "-c", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done"]);
  expect([started.status, started.stdout]).toEqual([0, "counter\n"]);
  expect(await vm.jobs.list()).toMatchObject([{ name: "counter", state: "running" }]);
  await expect(vm.jobs.start("true", { name: "counter" })).rejects.toMatchObject({ code: "EXISTS" });
  const attached = await vm.jobs.attach("counter");
  let seen = "";
  for await (const chunk of attached.stdout) if ((seen += (chunk as Buffer).toString()).split("\n").length > 5) break;
  expect(seen.startsWith("line 1\nline 2\nline 3\n")).toBe(true);
  attached.detach();
  await expect(attached.exit).rejects.toMatchObject({ code: "CANCELLED" });
  await vm.jobs.kill("counter", "SIGKILL", "all");
  const ended = await vm.jobs.attach("counter");
  ended.stdout.resume();
  ended.stderr.resume();
  expect(await ended.exit).toMatchObject({ exitCode: 137, signal: "SIGKILL" });
  await expect(vm.jobs.kill("conter")).rejects.toMatchObject({ code: "NOT_FOUND", hint: "Did you mean counter?" });
  await vm.jobs.forget("counter");
  expect(await vm.jobs.list()).toEqual([]);
});

test("a job that floods keeps its end, and holds nothing up", async () => {
  const { name } = await vm.jobs.start("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end");
  let total = 0;
  let tail = "";
  for (;;) {
    const [job] = await vm.jobs.list();
    if (job?.state === "exited") break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const job = await vm.jobs.attach(name);
  job.stderr.resume();
  for await (const chunk of job.stdout) {
    total += (chunk as Buffer).length;
    tail = (tail + (chunk as Buffer).toString("latin1")).slice(-9);
  }
  const exit = await job.exit;
  expect(tail).toBe("\nthe end\n");
  expect(exit).toMatchObject({ exitCode: 0, stdoutBytes: 20_000_009, stdoutDroppedBytes: 20_000_009 - total });
  expect(total).toBeLessThanOrEqual(262_144);
});
