import { randomBytes, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { eventually, leftovers, pyro, startPyro, collect } from "./pyro.js";

afterAll(async () => {
  await eventually(() => leftovers(process.env["HOME"]!).length === 0); // the last one's keeper is still at it for a moment
  expect(leftovers(process.env["HOME"]!)).toEqual([]);
});

test("git --version in debian:12", async () => {
  const result = await pyro(["run", "debian:12", "--", "git", "--version"]);
  expect(result.stdout).toMatch(/^git version 2\.39\.\d+\n$/);
  expect(result.status).toBe(0);
  const lines = result.stderr.trim().split("\n");
  expect(lines).toContainEqual(expect.stringMatching(/^\[run\] phase=start environment=debian:12 accelerator=(kvm|tcg message="\S.*")$/));
  expect(lines.at(-1)).toMatch(/^\[run\] environment=debian:12 execution_mode=guest exit_code=0 duration_ms=\d+$/);
});

test("--json prints one object with the fields of the contract, and the command's status is pyro's", async () => {
  const result = await pyro(["run", "debian:12", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
  expect(result.status).toBe(7);
  expect(result.stderr).toBe("");
  const object = JSON.parse(result.stdout) as Record<string, unknown>;
  expect(Object.keys(object)).toEqual([
    "accelerator", "boot_ms", "duration_ms", "environment", "execution_mode", "exit_code", "stderr", "stderr_bytes", "stderr_truncated", "stdout", "stdout_bytes", "stdout_truncated", "timed_out", "vm_id",
  ]);
  expect(object).toMatchObject({ environment: "debian:12", execution_mode: "guest", exit_code: 7, stdout: "out\n", stderr: "err\n", stdout_bytes: 4, stderr_bytes: 4, stdout_truncated: false, stderr_truncated: false, timed_out: false });
  expect(object["vm_id"]).toMatch(/^vm-[0-9a-z]{8}$/);
  expect(result.stdout.startsWith('{\n  "accelerator"')).toBe(true);
});

test("flags may stand on both sides of the environment and end at the first word", async () => {
  const result = await pyro(["run", "--quiet", "debian:12-base", "--mem-mib", "512", "sh", "-c", 'printf "%s|" "$@"', "sh", "--json", "a b", "", "--", "-x"]);
  expect(result.stdout).toBe("--json|a b||--|-x|");
  expect(result.stderr).toBe("");
  expect(result.status).toBe(0);
});

test("piped standard input arrives byte for byte and ends", async () => {
  const result = await pyro(["run", "debian:12", "--", "od", "-c"], { input: "a\0b" });
  expect(result.stdout).toBe("0000000   a  \\0   b\n0000003\n");
  const bytes = randomBytes(3_000_000);
  const summed = await pyro(["run", "debian:12", "--", "sha256sum"], { input: bytes });
  expect(summed.stdout).toBe(`${createHash("sha256").update(bytes).digest("hex")}  -\n`);
});

test("binary output is untouched, on both streams", async () => {
  const result = await pyro(["run", "debian:12-base", "--quiet", "--", "sh", "-c", "printf '\\377\\000\\001\\r\\n'; printf '\\376\\000' >&2"]);
  expect([...result.stdoutBytes]).toEqual([255, 0, 1, 13, 10]);
  expect(result.stderr).toBe("\ufffd\0");
});

test("300 MB of output are exact, and pyro's memory stays small", async () => {
  const child = startPyro(["run", "debian:12", "--timeout-seconds", "250", "--", "sh", "-c", "yes | head -c 300000000"]);
  let total = 0;
  let peakKb = 0;
  child.stdout!.on("data", (chunk: Buffer) => (total += chunk.length));
  const watch = setInterval(() => {
    try {
      peakKb = Math.max(peakKb, Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]));
    } catch {
      // it has just ended
    }
  }, 50);
  child.stdin!.end();
  const status = await new Promise((resolve) => child.once("close", resolve));
  clearInterval(watch);
  expect(status).toBe(0);
  expect(total).toBe(300_000_000);
  expect(peakKb).toBeGreaterThan(0);
  expect(peakKb).toBeLessThan(150_000);
});

test("captured output keeps head and tail and counts all of it", async () => {
  const result = await pyro(["run", "debian:12-base", "--json", "--", "sh", "-c", "printf BEGIN; yes x | head -c 3000000; printf END"]);
  const object = JSON.parse(result.stdout) as { stdout: string; stdout_bytes: number; stdout_truncated: boolean };
  expect(object.stdout_bytes).toBe(3_000_008);
  expect(object.stdout_truncated).toBe(true);
  expect(object.stdout.startsWith("BEGINx\nx\n")).toBe(true);
  expect(object.stdout.endsWith("x\nx\nEND")).toBe(true);
  expect(object.stdout).toContain("\n[1951432 bytes dropped]\n");
});

test("a time-out takes the command's children too and gives 124", async () => {
  const result = await pyro(["run", "debian:12", "--timeout-seconds", "6", "--", "sh", "-c", "echo before; sleep 100 & sleep 100"]);
  expect(result.status).toBe(124);
  expect(result.stdout).toBe("before\n");
  expect(result.stderr).toMatch(/exit_code=137 duration_ms=\d+ timed_out=true\n$/);
});

test("a command that leaves a child with its pipes open returns at once", async () => {
  const result = await pyro(["run", "debian:12-base", "--timeout-seconds", "25", "--", "sh", "-c", "sleep 1000 & echo done"]);
  expect(result.stdout).toBe("done\n");
  expect(result.status).toBe(0);
});

test("exit statuses: signals, not found, not executable", async () => {
  expect((await pyro(["run", "debian:12", "--", "sh", "-c", "kill -9 $$"])).status).toBe(137);
  const missing = await pyro(["run", "debian:12-base", "--", "no-such-program"]);
  expect(missing.status).toBe(127);
  expect(missing.stderr).toContain("no-such-program");
  const directory = await pyro(["run", "debian:12-base", "--", "/etc"]);
  expect(directory.status).toBe(126);
  expect((await pyro(["run", "debian:12-base", "--", "/etc/passwd"])).status).toBe(126);
});

test("a program compiled in debian:12-build runs", async () => {
  const result = await pyro(["run", "debian:12-build", "--", "sh", "-c", 'echo "int main(){return 42;}" > /tmp/a.c && gcc /tmp/a.c -o /tmp/a && /tmp/a']);
  expect(result.status).toBe(42);
});

test("vCPUs and memory are what was asked for", async () => {
  const result = await pyro(["run", "debian:12-base", "--vcpu-count", "2", "--mem-mib", "512", "--quiet", "--", "sh", "-c", "nproc; grep MemTotal /proc/meminfo"]);
  const [cpus, memory] = result.stdout.trim().split("\n");
  expect(cpus).toBe("2");
  const kb = Number(/(\d+) kB/.exec(memory!)![1]);
  expect(kb).toBeGreaterThan(400_000);
  expect(kb).toBeLessThan(524_288);
});

test("the guest: root on an overlay that takes writes, no network but lo, a clock, a host name of its own", async () => {
  const script = "id -u; touch /usr/bin/x && echo writable; ls /sys/class/net; hostname; date +%s; cat /proc/1/comm; grep -c ' / ' /proc/mounts; test -w /tmp && echo tmp; ls -d /proc/self/fd >/dev/null && echo proc";
  const before = Math.floor(Date.now() / 1000);
  const result = await pyro(["run", "debian:12-base", "--quiet", "--", "sh", "-c", script]);
  const lines = result.stdout.trim().split("\n");
  expect(lines[0]).toBe("0");
  expect(lines[1]).toBe("writable");
  expect(lines.slice(2, 4).filter((each) => each !== "eth0")).toContain("lo");
  const host = lines.find((each) => /^vm-[0-9a-z]{8}$/.test(each));
  expect(host).toBeDefined();
  const clock = Number(lines.find((each) => /^1[0-9]{9}$/.test(each)));
  expect(clock).toBeGreaterThanOrEqual(before);
  expect(clock).toBeLessThanOrEqual(Math.floor(Date.now() / 1000));
  expect(lines.slice(-2)).toEqual(["tmp", "proc"]);
});

test("two VMs never share their randomness or identity", async () => {
  const command = ["run", "debian:12-base", "--quiet", "--", "sh", "-c", "head -c 16 /dev/urandom | od -An -tx1; cat /etc/machine-id; hostname"];
  const [a, b] = [await pyro(command), await pyro(command)];
  const [linesA, linesB] = [a.stdout.trim().split("\n"), b.stdout.trim().split("\n")];
  expect(linesA).toHaveLength(3);
  expect(linesA[1]).toMatch(/^[0-9a-f]{32}$/);
  for (const index of [0, 1, 2]) expect(linesA[index]).not.toBe(linesB[index]);
});

test("the first Ctrl-C goes to the command, the second ends the VM", async () => {
  const first = startPyro(["run", "debian:12-base", "--", "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"]);
  first.stdout!.on("data", (chunk: Buffer) => String(chunk).includes("ready") && first.kill("SIGINT"));
  const caught = await collect(first);
  expect(caught.stdout).toBe("ready\ncaught\n");
  expect(caught.status).toBe(9);

  const second = startPyro(["run", "debian:12-base", "--", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done"]);
  second.stdout!.on("data", (chunk: Buffer) => {
    if (!String(chunk).includes("ready")) return;
    second.kill("SIGINT");
    setTimeout(() => second.kill("SIGINT"), 500);
  });
  const ended = await collect(second);
  expect(ended.status).toBe(130);
});

test("a reader that goes away ends the command", async () => {
  const child = startPyro(["run", "debian:12-base", "--", "yes"]);
  child.stdout!.once("data", () => child.stdout!.destroy());
  child.stdin!.end();
  const status = await new Promise((resolve) => child.once("exit", resolve));
  expect(status).toBe(141);
});

test("a guest that powers itself off is a clear error", async () => {
  const result = await pyro(["run", "debian:12-base", "--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"]);
  expect(result.status).toBe(125);
  expect(result.stderr).toContain("powered itself off or crashed");
});

test("the time to live ends a VM whose command goes on", async () => {
  const result = await pyro(["run", "debian:12-base", "--ttl-seconds", "12", "--timeout-seconds", "100", "--", "sleep", "90"]);
  expect(result.status).toBe(125);
  expect(result.stderr).toContain("time to live");
});
