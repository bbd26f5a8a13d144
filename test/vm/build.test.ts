/** Environments that are built in VMs: what a command changed, as the next VM sees it. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { pyro } from "./pyro.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-build-"));
afterAll(async () => {
  rmSync(directory, { recursive: true });
  for (const name of ["built", "built-again"]) await pyro(["env", "remove", name]);
  await pyro(["env", "prune"]);
});

const changes = `#!/bin/sh
set -e
echo "$1" > /etc/motd
chown 1:65534 /etc/motd
chmod 4755 /etc/motd
touch -d @1.5 /etc/motd
rm -r /usr/share/doc /etc/issue
rm -r /var/cache && mkdir /var/cache && echo fresh > /var/cache/only
mkdir -p /srv/$(printf 'd%.0s' $(seq 120))
mv /etc/passwd- /srv/moved 2>/dev/null || cp /etc/passwd /srv/moved
echo a > /srv/a && ln /srv/a /srv/b && ln -s a /srv/link && mkfifo /srv/pipe && mknod /srv/null c 1 3
mv /etc/skel /srv/skel
rm /bin/sh.distrib 2>/dev/null || true
ln -s /nowhere /etc/hosts.mine && echo x >> /etc/hosts
echo gone > /run/gone
`;

const look = `cat /etc/motd; stat -c '%a %u %g %Y' /etc/motd; ls -d /usr/share/doc /etc/issue /etc/skel /run/gone 2>&1 | sed 's/.*\\(\\/[a-z]*\\/[a-z]*\\).*/no \\1/'
ls /var/cache; ls /srv | cut -c1-9; stat -c '%h %F' /srv/b; readlink /srv/link; stat -c '%F %t:%T' /srv/null; ls -A /srv/skel | head -n1; grep -c x /etc/hosts; cat /srv/given/file; stat -c %u /srv/given`;

test("what a script changed is what the next VM has, and what others read", async () => {
  writeFileSync(join(directory, "script"), changes);
  execFileSync("mkdir", [join(directory, "given")]);
  writeFileSync(join(directory, "given/file"), "given\n");
  const built = await pyro(["env", "build", "built", "--from", "debian:12-base", "--copy", `${join(directory, "given")}:/srv/given`, "--script", join(directory, "script"), "--", "two words"]);
  expect(built.status, built.stderr).toBe(0);
  expect(built.stderr).toContain("[build] phase=done environment=built\n");
  const { stdout, stderr } = await pyro(["run", "--quiet", "built", "--", "sh", "-c", look]);
  expect(stderr).toBe("");
  expect(stdout.split("\n")).toEqual([
    "two words", "4755 1 65534 1", "no /share/doc", "no /etc/issue", "no /etc/skel", "no /run/gone", "only",
    "a", "b", "ddddddddd", "given", "link", "moved", "null", "pipe", "skel", "2 regular file", "a", "character special file 1:3", ".bash_logout", "0", "given", "0", "",
  ]);
  const exported = join(directory, "exported");
  expect((await pyro(["env", "export", "built", exported])).status).toBe(0);
  execFileSync("umoci", ["raw", "unpack", ...(process.getuid!() === 0 ? [] : ["--rootless"]), "--image", `${exported}:latest`, join(directory, "unpacked")], { stdio: "ignore" });
  expect(readFileSync(join(directory, "unpacked/var/cache/only"), "utf8")).toBe("fresh\n");
  expect(execFileSync("find", ["srv", "-maxdepth", "1", "-name", "[ab]"], { cwd: join(directory, "unpacked"), encoding: "utf8" }).split("\n").sort()).toEqual(["", "srv/a", "srv/b"]);
});

test("a command that fails keeps nothing, and its status is ours; over what was built it can be built on", async () => {
  const failed = await pyro(["env", "build", "built-again", "--from", "built", "--quiet", "--", "sh", "-c", "echo half > /half; echo out; exit 7"]);
  expect(failed).toMatchObject({ status: 7, stdout: "out\n" });
  expect((await pyro(["env", "inspect", "built-again"])).status).toBe(1);
  const json = await pyro(["env", "build", "built-again", "--from", "built", "--json", "--", "sh", "-c", "rm /etc/motd; echo out"]);
  expect(JSON.parse(json.stdout)).toMatchObject({ result: { exit_code: 0, stdout: "out\n" }, environment: { name: "built-again", installed: true } });
  expect((await pyro(["run", "--quiet", "built-again", "--", "sh", "-c", "ls /etc/motd /half /srv/a 2>/dev/null"])).stdout).toBe("/srv/a\n");
});

test("Ctrl-C while it runs: nothing is built, and no VM stays", async () => {
  let told = "";
  const interrupted = await pyro(["env", "build", "built-never", "--from", "debian:12-base", "--", "sh", "-c", "echo running; sleep 1000"], {
    onStart: (child) => child.stdout!.on("data", (part: Buffer) => {
      told += part.toString();
      if (told.includes("running")) child.kill("SIGINT");
    }),
  });
  expect(interrupted.status).toBe(130);
  expect((await pyro(["env", "inspect", "built-never"])).status).toBe(1);
});
