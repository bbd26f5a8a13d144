// Environments made for real, out of Debian's archive.
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { processesWith, pyro, startPyro } from "./pyro.js";

interface Details {
  digest: string;
  installed: boolean;
  directory: string;
  kernel: { version: string };
  packages: { name: string }[];
  size_bytes: number;
}

test("each environment has what its description says, and all have the one kernel", async () => {
  const packages = async (name: string) => (await inspect(name)).packages.map((each) => each.name);
  expect(await packages("debian:12")).toEqual(expect.arrayContaining(["bash", "ca-certificates", "curl", "git"]));
  const base = await packages("debian:12-base");
  expect(base).toEqual(expect.arrayContaining(["bash", "ca-certificates", "coreutils"]));
  expect(base).not.toContain("git");
  expect(await packages("debian:12-build")).toEqual(expect.arrayContaining(["gcc", "git", "make", "pkg-config"]));
  const all = await Promise.all(["debian:12", "debian:12-base", "debian:12-build"].map(inspect));
  expect(new Set(all.map((each) => each.kernel.version)).size).toBe(1);
  expect(new Set(all.map((each) => statSync(join(each.directory, "vmlinux")).ino)).size).toBe(1);
});

test("nothing of the host that made it is in the guest, and what is mounted on is there", async () => {
  const script = "cat /etc/resolv.conf /etc/apt/apt.conf.d/99mmdebstrap; head -n1 /etc/apt/sources.list; for each in /dev /proc /sys /run /tmp /usr/share/doc/bash/copyright; do test -e $each || echo no $each; done";
  const { stdout, stderr } = await pyro(["run", "debian:12-base", "--quiet", "--", "sh", "-c", script]);
  expect(stderr).toBe("");
  expect(stdout).toMatch(/^Acquire::Languages "none";\ndeb \[signed-by=\/usr\/share\/keyrings\/debian-archive-keyring\.gpg\] http:\/\/\S+ bookworm main\n/);
  expect(stdout).not.toContain("no /");
});

test("a damaged boot file is mended, and the environment is the same as before", async () => {
  const before = await inspect("debian:12-base");
  truncateSync(join(before.directory, "initramfs"), 1000);
  expect((await inspect("debian:12-base")).installed).toBe(false);
  expect((await pyro(["env", "pull", "debian:12-base"])).status).toBe(0);
  expect(await inspect("debian:12-base")).toMatchObject({ installed: true, digest: before.digest });
});

// A home of its own for what is broken off: nothing in the shared one may get lost.
const home = mkdtempSync(join(tmpdir(), "pyro-broken-off-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));
const env = { HOME: home, XDG_CACHE_HOME: join(home, "cache") };
const temporary = join(home, "cache/pyro-mcp/tmp");

/** Making an environment takes a minute or two, and several where the disk is busy. */
const makingMs = 3_600_000;
const moments = [
  ["SIGKILL", "fetching package lists"],
  ["SIGINT", "unpacking essential packages"],
  ["SIGKILL", "installing packages"],
  ["SIGKILL", "writing the disk image"],
] as const;

for (const [signal, message] of moments) {
  test(`${signal} while ${message}: nothing counts as installed, and neither processes nor files stay`, { timeout: makingMs }, async () => {
    const stopped = async () => {
      const child = startPyro(["env", "pull", "debian:12-base"], env);
      const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
      child.stdout!.resume();
      let said = "";
      await new Promise<void>((resolve, reject) => {
        child.stderr!.on("data", (chunk: Buffer) => {
          said += chunk.toString();
          if (said.includes(`message="${message}"`)) resolve();
        });
        child.once("close", () => reject(new Error(`the pull ended by itself:\n${said}`)));
      });
      child.kill(signal);
      await ended;
      return child.exitCode !== 0;
    };
    while (!(await stopped())) expect((await pyro(["env", "remove", "debian:12-base"], { env })).status).toBe(0); // it was through before we had a look
    await gone(home);
    expect(readdirSync(temporary)).toEqual([]);
    const listed = await pyro(["env", "list", "--json"], { env });
    expect(listed.stdout).toContain('"name": "debian:12-base"');
    expect(listed.stdout).not.toContain('"installed": true');
  });
}

test("two pulls at once after that: one waits for the other, and the same archive gives the same environment again", { timeout: makingMs }, async () => {
  const before = await inspect("debian:12-base");
  const pull = () => pyro(["env", "pull", "debian:12-base"], { env, timeoutMs: 1_800_000 });
  const pulls = await Promise.all([pull(), pull()]);
  expect(pulls.map((each) => each.status)).toEqual([0, 0]);
  expect(pulls.filter((each) => each.stderr.includes("another process is pulling debian:12-base"))).toHaveLength(1);
  const inspected = await pyro(["env", "inspect", "debian:12-base", "--json"], { env });
  expect(JSON.parse(inspected.stdout)).toMatchObject({ installed: true, digest: before.digest });
  expect((await pyro(["env", "prune"], { env })).status).toBe(0);
  expect(readdirSync(temporary)).toEqual([]);
});

async function inspect(name: string): Promise<Details> {
  const { status, stdout, stderr } = await pyro(["env", "inspect", name, "--json"]);
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Details;
}

/** Waits until no process has `path` in its command line: the kernel needs a moment for a whole process id name space. */
async function gone(path: string): Promise<void> {
  for (let round = 0; processesWith(path).length > 0; round++) {
    if (round === 2400) throw new Error(`still running: ${processesWith(path).join("\n")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
