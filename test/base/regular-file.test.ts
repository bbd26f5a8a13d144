import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openRegular, readRegular } from "../../src/base/regular-file.js";

let directory: string;
beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), "pyro-regular-"))));
afterAll(() => rm(directory, { recursive: true, force: true }));

test("reads a file, through a link too, up to its limit", async () => {
  const path = join(directory, "file");
  await writeFile(path, "12345");
  await symlink(path, join(directory, "link"));
  expect((await readRegular(path, 5)).toString()).toBe("12345");
  expect((await readRegular(join(directory, "link"), 5)).toString()).toBe("12345");
  await expect(readRegular(path, 4)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${path} has 5 bytes; at most 4 are allowed.` });
  await expect(openRegular(join(directory, "nothing"))).rejects.toMatchObject({ code: "ENOENT" });
});

test.each([
  ["a FIFO", async (path: string) => void (await promisify(execFile)("mkfifo", [path]))],
  ["a directory", async (path: string) => mkdir(path)],
  ["a device", async (path: string) => symlink("/dev/zero", path)],
])("%s is refused at once", async (what, make) => {
  const path = join(directory, what.replace(" ", "-"));
  await make(path);
  await expect(openRegular(path)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${path} is not a regular file.` });
});

test("a socket is refused", async () => {
  const path = join(directory, "socket");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  await expect(openRegular(path)).rejects.toMatchObject({ code: "ENVIRONMENT_INVALID", message: `${path} is not a regular file.` });
  await new Promise((resolve) => server.close(resolve));
});
