import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { findProgram, keepChild, keeperTtlStatus, runChild } from "../../src/base/child.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-child-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("runChild: output, status, standard input, and the end of standard error", async () => {
  const result = await runChild("sh", ["-c", "cat; echo oops >&2; exit 3"], { input: "hello" });
  expect({ ...result, stdout: result.stdout.toString() }).toEqual({ code: 3, signal: null, stdout: "hello", stderr: "oops\n" });
});

test("runChild: a child that writes too much, takes too long or is not wanted any more is ended", async () => {
  await expect(runChild("sh", ["-c", "yes"], { maxOutputBytes: 1000 })).rejects.toMatchObject({ code: "PROTOCOL", message: "sh wrote more than 1000 bytes." });
  await expect(runChild("sleep", ["60"], { timeoutMs: 50 })).rejects.toMatchObject({ code: "TIMEOUT" });
  const controller = new AbortController();
  const child = runChild("sleep", ["60"], { signal: controller.signal });
  controller.abort();
  await expect(child).rejects.toMatchObject({ code: "CANCELLED" });
});

test("a missing program is named, with the package that brings it", async () => {
  await expect(runChild("no-such-program", [])).rejects.toMatchObject({ code: "HOST_MISSING", message: "no-such-program is not installed." });
  await expect(findProgram("/nowhere/mmdebstrap")).rejects.toMatchObject({ hint: "sudo apt-get install -y mmdebstrap" });
  await expect(findProgram("/nowhere/unshare")).rejects.toMatchObject({ hint: "sudo apt-get install -y util-linux" });
  await expect(findProgram("/nowhere/apt-config")).rejects.toMatchObject({ hint: "sudo apt-get install -y apt" });
});

test("too few descriptors are the host's lack, and no fault of ours", async () => {
  // In a process of its own, so that none but the child's start is in want of them.
  const script = `
    import { closeSync, openSync } from "node:fs";
    import { runChild } from ${JSON.stringify(new URL("../../dist/base/child.js", import.meta.url).href)};
    const taken = [];
    try { for (;;) taken.push(openSync("/dev/null", "r")); } catch {}
    for (const fd of taken.splice(0, 4)) closeSync(fd);
    const error = await runChild("true", []).catch((error) => error);
    for (const fd of taken) closeSync(fd);
    console.log(JSON.stringify(error));`;
  const { stdout, stderr } = await runChild("sh", ["-c", 'ulimit -n 100; exec "$0" --input-type=module -e "$1"', process.execPath, script]);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout.toString())).toMatchObject({ code: "HOST_MISSING", message: expect.stringMatching(/^true could not be started: spawn .* EMFILE$/) as string, hint: expect.stringContaining("`ulimit -n`") as string });
});

test("children see nothing of our environment but what they need", async () => {
  process.env["PYRO_TEST_SECRET"] = "secret";
  process.env["https_proxy"] = "http://user:secret@proxy.invalid";
  try {
    const { stdout } = await runChild("env", []);
    expect(stdout.toString()).not.toContain("secret");
    expect(stdout.toString()).not.toContain("proxy");
    expect(stdout.toString()).toContain("LC_ALL=C.UTF-8");
  } finally {
    delete process.env["PYRO_TEST_SECRET"];
    delete process.env["https_proxy"];
  }
});

test("keepChild: descriptors are the child's, and end() ends it with its descendants", async () => {
  const file = join(directory, "pids");
  const child = await keepChild("sh", ["-c", `setsid sleep 100 & echo $! > ${file}; cat <&3 >&4; wait`], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  child.stdio[3]!.write("through");
  const echoed = await new Promise((resolve) => child.stdio[4]!.once("data", (data: Buffer) => resolve(data.toString())));
  expect(echoed).toBe("through");
  const grandchild = Number(readFileSync(file, "utf8"));
  expect(alive(grandchild)).toBe(true);
  await child.end();
  expect(alive(grandchild)).toBe(false);
  expect(alive(child.pid)).toBe(false);
});

test("keepChild: the child's own status, a signal's, and the time to live's", async () => {
  const status = async (script: string, ttlSeconds?: number) => (await (await keepChild("sh", ["-c", script], { stdio: ["ignore", "ignore", "ignore"], ...(ttlSeconds !== undefined && { ttlSeconds }) })).exited).code;
  expect(await status("exit 0")).toBe(0);
  expect(await status("exit 41")).toBe(41);
  expect(await status("kill -15 $$")).toBe(143);
  expect(await status("sleep 60", 1)).toBe(keeperTtlStatus);
});

test("nothing of these tests is left running", () => {
  const running = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(directory);
    } catch {
      return false;
    }
  });
  expect(running).toEqual([]);
});

function alive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
