import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { availableMemoryMib, checkDisk, checkHost, checkMemory, freeDiskMib } from "../../src/core/host-room.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-host-room-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A host's files, below a directory of its own. */
function host(files: Record<string, string>): string {
  const root = mkdtempSync(join(directory, "host-"));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

const meminfo = "MemTotal:       24683520 kB\nMemFree:          102400 kB\nMemAvailable:   20480000 kB\n";
const v2 = (group: string, max: string, current: string, inactive = "0") => ({
  [`sys/fs/cgroup${group}/memory.max`]: `${max}\n`,
  [`sys/fs/cgroup${group}/memory.current`]: `${current}\n`,
  [`sys/fs/cgroup${group}/memory.stat`]: `anon 1\ninactive_file ${inactive}\nactive_file 5\n`,
});
const mib = (count: number) => String(count * 1048576);

test.each([
  ["no control groups", {}, 20_000, "The host"],
  ["no limit", { "proc/self/cgroup": "0::/a/b\n", ...v2("/a/b", "max", mib(100)) }, 20_000, "The host"],
  ["a limit", { "proc/self/cgroup": "0::/a/b\n", ...v2("/a/b", mib(1000), mib(300)) }, 700, "The control group /a/b"],
  ["cache is given back", { "proc/self/cgroup": "0::/a/b\n", ...v2("/a/b", mib(1000), mib(900), mib(500)) }, 600, "The control group /a/b"],
  ["the tightest of all above", { "proc/self/cgroup": "0::/a/b\n", ...v2("/a/b", mib(1000), mib(300)), ...v2("/a", mib(2000), mib(1900)) }, 100, "The control group /a"],
  ["one that is over its limit", { "proc/self/cgroup": "0::/a\n", ...v2("/a", mib(100), mib(200)) }, 0, "The control group /a"],
  ["a container's own", { "proc/self/cgroup": "0::/\n", ...v2("", mib(512), mib(12)) }, 500, "The control group of this container"],
  ["version 1", { "proc/self/cgroup": "4:memory:/x\n2:cpu,cpuacct:/\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": `${mib(300)}\n`, "sys/fs/cgroup/memory/x/memory.usage_in_bytes": `${mib(100)}\n`, "sys/fs/cgroup/memory/x/memory.stat": `inactive_file 1\ntotal_inactive_file ${mib(50)}\n` }, 250, "The control group /x"],
  ["version 1 without a limit", { "proc/self/cgroup": "4:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "1\n" }, 20_000, "The host"],
  ["what is no number", { "proc/self/cgroup": "0::/a\nx\n", ...v2("/a", "", "many") }, 20_000, "The host"],
] as [string, Record<string, string>, number, string][])("%s", (_, files, expected, of) => {
  expect(availableMemoryMib(host({ "proc/meminfo": meminfo, ...files }))).toEqual({ mib: expected, of });
});

test("where nothing tells, nothing is refused", () => {
  expect(availableMemoryMib(host({}))).toBeUndefined();
  expect(() => checkMemory(65_536, undefined)).not.toThrow();
});

test("each VM is asked for itself: a hundred of 1 GiB, each of which takes 27 MiB, start on 24 GiB", () => {
  for (let running = 0; running < 100; running++) expect(() => checkMemory(1024, { mib: 22_000 - running * 27, of: "The host" })).not.toThrow();
});

test("the error says what there is, what is needed, and whose limit it is", () => {
  expect(() => checkMemory(1024, { mib: 1088, of: "The host" })).not.toThrow();
  expect(() => checkMemory(1024, { mib: 1087, of: "The host" })).toThrow(expect.objectContaining({ code: "HOST_MISSING", message: "The host has 1087 MiB of memory available; a VM of 1024 MiB may need 1088." }) as Error);
  expect(() => checkMemory(1024, { mib: 500, of: "The control group /a" })).toThrow("The control group /a has 500 MiB of memory available");
});

test("a disk that is full is said to be, one that counts nothing is not", async () => {
  expect(() => checkDisk("/x", 32)).not.toThrow();
  expect(() => checkDisk("/x", 31)).toThrow(expect.objectContaining({ code: "DISK_FULL", message: "The disk of /x has 31 MiB free; a VM needs at least 32 for what it writes." }) as Error);
  expect(await freeDiskMib("/proc")).toBeUndefined();
  expect(await freeDiskMib("/nonexistent")).toBeUndefined();
  expect(await freeDiskMib(directory)).toBeGreaterThan(0);
});

test("this host has room for a small VM", async () => {
  await expect(checkHost({ memMib: 128, temporaryDirectory: directory })).resolves.toBeUndefined();
});
