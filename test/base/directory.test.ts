import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makeDirectory } from "../../src/base/directory.js";

let directory: string;
beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), "pyro-directory-"))));
afterAll(() => rm(directory, { recursive: true, force: true }));

test("makes what is missing, for this user alone, and leaves what is there", async () => {
  await mkdir(join(directory, "open"), { mode: 0o755 });
  const path = join(directory, "open/a/b/c");
  expect(await Promise.all([makeDirectory(path), makeDirectory(path), makeDirectory(join(directory, "open/a/x"))])).toEqual([path, path, join(directory, "open/a/x")]);
  const modes = await Promise.all(["open", "open/a", "open/a/b", "open/a/b/c"].map(async (each) => (await stat(join(directory, each))).mode & 0o777));
  expect(modes).toEqual([0o755, 0o700, 0o700, 0o700]);
});

test("goes through a link to a directory", async () => {
  await symlink(directory, join(directory, "link"));
  await makeDirectory(join(directory, "link/through"));
  expect((await stat(join(directory, "through"))).isDirectory()).toBe(true);
});

test.each([
  ["a file", async (path: string) => writeFile(path, "")],
  ["a link to itself", async (path: string) => symlink(path, path)],
  ["a link to nothing", async (path: string) => symlink("/nonexistent/x", path)],
  ["a FIFO", async (path: string) => void (await promisify(execFile)("mkfifo", [path]))],
])("%s in the way is DENIED, with the next step", async (what, make) => {
  const path = join(directory, what.replaceAll(" ", "-"));
  await make(path);
  for (const each of [path, join(path, "below/it")]) {
    await expect(makeDirectory(each)).rejects.toMatchObject({ code: "DENIED", message: expect.stringContaining(each), hint: expect.stringContaining("XDG_CACHE_HOME") });
  }
});

// mkdir(2) says ENOENT there; Node's own recursion tries for ever, in a thread that nothing can interrupt.
test.each(["/proc/pyro-mcp/environments", "/dev/null/pyro-mcp", `/tmp/${"x".repeat(300)}`])("%.40s can't be made", async (path) => {
  await expect(makeDirectory(path)).rejects.toMatchObject({ code: "DENIED", hint: expect.stringContaining("XDG_CACHE_HOME") });
});
