// Every request of the protocol over virtio, to one real guest.
import { createHash, randomBytes } from "node:crypto";
import { beforeAll, expect, test } from "vitest";
import { connectChannel, type Channel } from "../../src/channel/index.js";
import { scratchDisk } from "../../src/environments/index.js";
import { bytesOf, run, said, text, useGuests, type Guest } from "./guest.js";

const guests = useGuests();
let guest: Guest;
let channel: Channel;

beforeAll(async () => {
  guest = await guests.boot({ vcpuCount: 2, memMib: 512, ports: 3, ttlSeconds: 6000 });
  channel = guest.channel;
  await channel.identify({ vmId: "vm-test", hostname: "vm-test", machineId: "0123456789abcdef0123456789abcdef" });
});

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const sh = (script: string) => ["/bin/sh", "-c", script];

test("who it is, the time, randomness, a ping", async () => {
  expect(await text(channel, { shell: "hostname; cat /etc/machine-id" })).toBe("vm-test\n0123456789abcdef0123456789abcdef");
  const { clockNs } = await channel.setClock();
  expect(Math.abs(Number(clockNs / 1_000_000n) - Date.now())).toBeLessThan(60_000);
  await channel.addEntropy(randomBytes(4096));
  const first = await channel.ping();
  expect(await channel.ping()).toBeGreaterThan(first);
});

test("its card: made up, taken down, and all as it was", async () => {
  const identity = { vmId: "vm-test", hostname: "vm-test", machineId: "0123456789abcdef0123456789abcdef" };
  const network = { address: "100.96.0.2", prefix: 24, gateway: "100.96.0.1", nameServer: "100.96.0.9", mtu: 4000 };
  // Of the flags 1 is IFF_UP; `operstate` follows some time later.
  const look = () => text(channel, { argv: sh("cat /etc/resolv.conf; cat /sys/class/net/eth0/mtu /sys/class/net/eth0/flags; grep -c ^eth0 /proc/net/route; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6") });
  expect(await look()).toMatch(/\n?1500\n0x1002\n0\n1$/);
  const before = await text(channel, { argv: sh("cat /etc/resolv.conf; stat -c %i /etc/resolv.conf") });
  for (let round = 0; round < 2; round++) {
    await channel.identify({ ...identity, network });
    expect(await look()).toMatch(/^nameserver 100\.96\.0\.9\n4000\n0x1003\n2\n1$/);
    await channel.identify(identity);
    expect(await look()).toMatch(/\n?4000\n0x1002\n0\n1$/);
    expect(await text(channel, { argv: sh("cat /etc/resolv.conf; stat -c %i /etc/resolv.conf") })).toBe(before);
  }
});

test("words, environment, directory and what is not there", async () => {
  expect(await text(channel, { argv: ["printf", "%s|", "a b", "", "$HOME", Buffer.from([0xff, 0x0a])] })).toBe("a b||$HOME|\ufffd\n|");
  expect(await text(channel, { argv: sh("pwd; echo $A; echo $HOME $USER $LANG"), cwd: "/usr/bin", env: { A: "b c" } })).toBe("/usr/bin\nb c\n/root root C.UTF-8");
  expect((await run(channel, { argv: ["no-such-program"] })).outcome).toMatchObject({ failure: { errno: 2, stage: "exec", message: "no-such-program: command not found" } });
  expect((await run(channel, { argv: ["/etc/passwd"] })).outcome).toMatchObject({ failure: { errno: 13, stage: "exec" } });
  expect((await run(channel, { argv: ["true"], cwd: "/nowhere" })).outcome).toMatchObject({ failure: { errno: 2, stage: "chdir" } });
});

test("users by name, number and group", async () => {
  const id = (user: string) => text(channel, { argv: sh("id -u; id -g; id -G; cd; pwd"), user });
  expect(await id("nobody")).toBe("65534\n65534\n65534\n/");
  expect(await id("1234:5678")).toBe("1234\n5678\n5678\n/");
  expect(await id("daemon:tty")).toMatch(/^1\n5\n/);
  expect((await run(channel, { argv: ["true"], user: "nobody-such" })).outcome).toMatchObject({ failure: { stage: "user" } });
  expect(await text(channel, { argv: sh("cat /etc/shadow 2>&1 || true"), user: "nobody" })).toContain("Permission denied");
});

test("every exit status", async () => {
  for (const code of [0, 1, 2, 126, 127, 128, 255]) expect((await run(channel, { argv: sh(`exit ${code}`) })).outcome).toMatchObject({ exitCode: code });
  expect((await run(channel, { argv: sh("kill -11 $$") })).outcome).toMatchObject({ exitCode: 139, signal: 11 });
});

test("20 MB through cat, both windows full again and again", async () => {
  const sent = randomBytes(20_000_000);
  const pieces = Array.from({ length: 306 }, (_, at) => sent.subarray(at * 65_573, (at + 1) * 65_573));
  const { outcome, stdout } = await run(channel, { argv: ["cat"] }, pieces);
  expect(outcome).toMatchObject({ exitCode: 0, stdoutBytes: 20_000_000 });
  expect(sha256(stdout)).toBe(sha256(sent));
});

test("a reader that does not read holds up its command and nobody else", async () => {
  const slow = channel.exec({ argv: sh("head -c 5000000 /dev/zero; echo done >&2") });
  await slow.started;
  expect(await text(channel, { argv: ["echo", "meanwhile"] })).toBe("meanwhile");
  expect((await bytesOf(slow.stdout)).length).toBe(5_000_000);
  expect((await bytesOf(slow.stderr)).toString()).toBe("done\n");
});

test("a terminal: its size, job control, interrupt and end", async () => {
  const shell = channel.exec({ argv: ["/bin/bash", "--norc"], tty: { rows: 30, columns: 100 }, stdin: true, env: { PS1: "ready> " } });
  await said(shell.stdout, /ready> /);
  const ask = (line: string, answer: RegExp) => {
    const heard = said(shell.stdout, answer);
    shell.stdin!.write(line);
    return heard;
  };
  await ask("stty size\n", /^30 100\r$/m);
  shell.resize(50, 132);
  await ask("stty size\n", /^50 132\r$/m);
  // It says so itself when it is in the foreground; before that the shell would get the keys. With exec, as a shell that is stopped inside vfork hangs.
  await ask("sh -c 'echo g''o; exec sleep 1000'\n", /^go\r$/m);
  await ask("\x1a", /Stopped[^]*ready> /);
  await ask("fg\n", /^sh -c .*\r$/m);
  // Bash says so before it lets the job go on: a key that comes between is bash's own, so it is pressed until it has been heard.
  const pressed = said(shell.stdout, /ready> /);
  const press = setInterval(() => shell.stdin!.write("\x03"), 1000);
  shell.stdin!.write("\x03");
  await pressed.finally(() => clearInterval(press));
  await ask("echo status=$?; tty\n", /status=130[^]*\/dev\/pts\/0[^]*ready> /); // at its prompt: an end of input before that is lost in the change of the terminal's mode
  shell.stdin!.end();
  expect(await shell.result).toMatchObject({ exitCode: 0 });
});

test("files whole: 50 MB, modes, appended, exclusive, parts, binary names", async () => {
  const content = randomBytes(50_000_000);
  const name = Buffer.from("/tmp/\xff\xfe\n'\"name", "latin1");
  await channel.writeFile(name, content, { mode: 0o4751 });
  expect(sha256(await bytesOf(channel.readFile(name)))).toBe(sha256(content));
  expect(await channel.stat(name)).toMatchObject({ type: "file", mode: 0o4751, uid: 0, links: 1, sizeBytes: 50_000_000n });
  expect((await bytesOf(channel.readFile(name, { offset: 49_999_990, length: 100 }))).equals(content.subarray(49_999_990))).toBe(true);
  await channel.writeFile(name, Buffer.from("more"), { append: true });
  expect((await channel.stat(name)).sizeBytes).toBe(50_000_004n);
  await expect(channel.writeFile(name, Buffer.from("x"), { exclusive: true })).rejects.toMatchObject({ code: "EXISTS" });
  await channel.writeFile("/tmp/a/b/c/d", Buffer.from("deep"), { makeParents: true });
  expect((await bytesOf(channel.readFile("/tmp/a/b/c/d"))).toString()).toBe("deep");
  expect((await channel.list("/tmp")).map((each) => each.name.toString("latin1")).sort()).toEqual(["a", "\xff\xfe\n'\"name"]);
  await expect(bytesOf(channel.readFile("/nothing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  await run(channel, { argv: ["ln", "-s", "/tmp/a", "/tmp/link"] });
  expect(await channel.stat("/tmp/link")).toMatchObject({ type: "link", target: Buffer.from("/tmp/a") });
  expect(await channel.stat("/tmp/link", { follow: true })).toMatchObject({ type: "directory" });
});

test("a write that is broken off leaves what was there, and no temporary file", async () => {
  await channel.writeFile("/tmp/kept", Buffer.from("before"));
  const controller = new AbortController();
  const endless = async function* () {
    for (let count = 0; ; count++) {
      if (count === 20) controller.abort();
      yield Buffer.alloc(65_536);
    }
  };
  await expect(channel.writeFile("/tmp/kept", endless(), { signal: controller.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  expect((await bytesOf(channel.readFile("/tmp/kept"))).toString()).toBe("before");
  expect((await channel.list("/tmp")).filter((each) => each.name.toString("latin1").includes("pyro"))).toEqual([]);
});

test("signals reach the process, its group or all of its cgroup", async () => {
  const trap = "trap 'echo shell' TERM; (trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done) & while :; do wait; sleep 0.05; done";
  const one = channel.exec({ argv: sh(trap) });
  await said(one.stdout, /ready/);
  one.signal(15, "process");
  expect(await said(one.stdout, /shell/)).not.toContain("child");
  one.signal(15, "group");
  await said(one.stdout, /child/);
  one.signal(9, "all");
  expect(await one.result).toMatchObject({ signal: 9 });
});

test("background children live on, CANCEL leaves none", async () => {
  const { outcome } = await run(channel, { argv: sh("setsid sleep 4711 & echo started") });
  expect(outcome).toMatchObject({ exitCode: 0 });
  const count = (what: string) => text(channel, { argv: sh(`grep -lxz '${what}' /proc/[0-9]*/cmdline 2>/dev/null | wc -l`) });
  await expect.poll(() => count("471[1]")).toBe("1"); // the shell may be over before its child is what it is to become
  const cancelled = channel.exec({ argv: sh("setsid sleep 4712 & setsid setsid sleep 4712 & echo ready; wait") });
  await said(cancelled.stdout, /ready/);
  cancelled.cancel();
  expect(await cancelled.result).toMatchObject({ signal: 9 });
  await expect.poll(() => count("471[2]")).toBe("0");
});

test("a command that removes the cgroup made ahead for the next one does it no harm", async () => {
  await run(channel, { argv: sh("rmdir /sys/fs/cgroup/pyro/*") }); // its own is in use and stays
  expect(await text(channel, { argv: ["echo", "fine"] })).toBe("fine");
});

test("64 at once, 1,000 in a row", async () => {
  const all = await Promise.all(Array.from({ length: 64 }, (_, at) => text(channel, { argv: ["echo", String(at)] })));
  expect(all).toEqual(Array.from({ length: 64 }, (_, at) => String(at)));
  for (let at = 0; at < 1000; at++) expect(await text(channel, { argv: ["echo", String(at)] })).toBe(String(at));
});

test("a second port: its own commands, gone with its host", async () => {
  const second = await connectChannel(guest.vm.ports[1]!, { fresh: true, deadlineMs: 60_000 });
  const endless = second.exec({ argv: ["sleep", "4713"] });
  await endless.started;
  expect(await text(channel, { argv: ["echo", "first"] })).toBe("first");
  second.close();
  await expect.poll(() => text(channel, { argv: sh("grep -lxz '471[3]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l") })).toBe("0");
  expect(await second.closed).toBe(undefined);
});

test("outputs closed early, and a command that nothing but SIGKILL ends", async () => {
  expect((await run(channel, { argv: sh("exec >&- 2>&-; sleep 0.3; exit 3") })).outcome).toMatchObject({ exitCode: 3, stdoutBytes: 0 });
  const deaf = channel.exec({ argv: ["/bin/bash", "-c", "for s in {1..64}; do trap '' $s 2>/dev/null; done; echo ready; while :; do sleep 1; done"] });
  await said(deaf.stdout, /ready/);
  for (const signal of [1, 2, 3, 15]) deaf.signal(signal, "group");
  expect(await text(channel, { argv: sh(`test -e /proc/${(await deaf.started).pid} && echo runs`) })).toBe("runs");
  deaf.cancel();
  expect(await deaf.result).toMatchObject({ signal: 9 });
});

test("directories, removal and trees: other mounts are never entered", async () => {
  await run(channel, { argv: sh("mkdir -p /tmp/t/a/tmpfs /tmp/t/bind /tmp/source && echo kept > /tmp/source/file && mount -t tmpfs none /tmp/t/a/tmpfs && echo kept > /tmp/t/a/tmpfs/file && mount --bind /tmp/source /tmp/t/bind && mknod /tmp/t/null c 1 3") });
  const tree = channel.packTree("/tmp/t");
  const paths: string[] = [];
  for await (const { path } of tree) paths.push(path.toString());
  expect([paths.sort(), (await tree.totals).skipped]).toEqual([["", "a", "a/tmpfs", "bind"], 3]);
  await expect(channel.remove("/tmp/t", { recursive: true })).rejects.toMatchObject({ code: "INVALID_STATE" });
  expect(await text(channel, { argv: sh("cat /tmp/source/file /tmp/t/a/tmpfs/file; umount /tmp/t/a/tmpfs /tmp/t/bind") })).toBe("kept\nkept");
  await channel.remove("/tmp/t", { recursive: true });
  await expect(channel.remove("/", { recursive: true })).rejects.toMatchObject({ code: "INVALID_STATE" });
  await channel.makeDirectory("/tmp/made", { mode: 0o1777 });
  await channel.change("/tmp/made", { owner: { uid: 65534, gid: 5 }, mtimeNs: 1_500_000_000_000_000_001n });
  expect(await channel.stat("/tmp/made")).toMatchObject({ mode: 0o1777, uid: 65534, gid: 5, mtimeNs: 1_500_000_000_000_000_001n });
});

test("/usr/bin and /etc go out and in again, and are the same", async () => {
  for (const path of ["/usr/bin", "/etc"]) {
    const { entries } = await channel.unpackTree("/tmp/copied", channel.packTree(path), { owners: true });
    expect(entries).toBeGreaterThan(100);
    const listing = (of: string) => text(channel, { argv: sh(`cd ${of} && find . -printf '%P %y %m %U:%G %T@ %l\\n' | sort && find . -type f -exec sha256sum {} + | sort | sha256sum`) });
    expect(await listing("/tmp/copied")).toBe(await listing(path));
    await channel.remove("/tmp/copied", { recursive: true });
  }
});

test("a job outlives its connection, and what it left behind can still be killed", async () => {
  const second = await connectChannel(guest.vm.ports[2]!, { fresh: true, deadlineMs: 60_000 });
  await second.startJob("server", { argv: sh("setsid sleep 4714 & echo started; sleep 0.5; echo ended") });
  second.close();
  const job = channel.attachJob("server");
  expect((await bytesOf(job.stdout)).toString()).toBe("started\nended\n");
  expect(await job.result).toMatchObject({ exitCode: 0, stdoutDroppedBytes: 0 });
  const count = () => text(channel, { argv: sh("grep -lxz '471[4]' /proc/[0-9]*/cmdline 2>/dev/null | wc -l") });
  await expect.poll(count).toBe("1");
  await channel.killJob("server", 9, "all");
  await expect.poll(count).toBe("0");
  expect(await channel.listJobs()).toMatchObject([{ name: "server", command: ["/bin/sh", "-c", expect.stringContaining("setsid") as string], end: { exitCode: 0 } }]);
  await channel.forgetJob("server");
});

test("how it is", async () => {
  await run(channel, { argv: sh("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done") });
  const stats = await channel.stats();
  expect(stats.memoryTotalBytes).toBeGreaterThan(400 * 2 ** 20);
  expect(stats.memoryTotalBytes).toBeLessThan(512 * 2 ** 20);
  expect(stats.memoryAvailableBytes).toBeLessThan(stats.memoryTotalBytes);
  expect(stats.diskTotalBytes).toBeGreaterThan(9 * 2 ** 30);
  expect(stats.diskFreeBytes).toBeLessThan(stats.diskTotalBytes);
  expect([stats.cpuTimeMs > 0, stats.uptimeMs > 0]).toEqual([true, true]);
  const before = stats.processes;
  const sleeper = channel.exec({ argv: ["sleep", "4715"] });
  await sleeper.started;
  await expect.poll(async () => (await channel.stats()).processes).toBe(before + 1);
  sleeper.cancel();
  await sleeper.result;
});

test("at the limit of processes no command starts, and everything else goes on", async () => {
  const limit = "/sys/fs/cgroup/pyro/pids.max";
  const before = await text(channel, { argv: ["cat", limit] });
  expect([Number(before) > 400, Number(before) <= 512]).toEqual([true, true]); // one a MiB
  await run(channel, { argv: sh(`echo 40 > ${limit}`) });
  const many = channel.exec({ argv: ["perl", "-e", "while (1) { my $child = fork; sleep 4716 unless $child }"] }); // children, and the parent when it can't fork
  await expect.poll(async () => (await channel.stats()).processes).toBe(40);
  expect((await run(channel, { argv: ["true"] })).outcome).toMatchObject({ failure: { errno: 11, stage: "fork" } });
  await channel.writeFile("/tmp/meanwhile", Buffer.from("written"));
  many.cancel();
  expect(await many.result).toMatchObject({ signal: 9 });
  await channel.writeFile(limit, Buffer.from(before), { append: true });
  expect(await text(channel, { argv: ["cat", "/tmp/meanwhile", limit] })).toBe(`written${before}`);
});

test("a fork bomb is killed by CANCEL, and the guest lives on", async () => {
  const bomb = channel.exec({ argv: ["/bin/bash", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000"] });
  await bomb.started;
  // As far as it gets until a file was written and read beside it.
  await expect.poll(async () => (await channel.stats()).processes).toBeGreaterThan(200);
  await channel.writeFile("/tmp/beside", Buffer.from("beside"));
  expect((await bytesOf(channel.readFile("/tmp/beside"))).toString()).toBe("beside");
  bomb.cancel();
  expect(await bomb.result).toMatchObject({ signal: 9 });
  expect(await text(channel, { argv: ["echo", "alive"] })).toBe("alive");
});

test("who eats all memory is killed, and nobody else", async () => {
  const bystander = channel.exec({ argv: ["sleep", "4717"] });
  await bystander.started;
  const { outcome } = await run(channel, { argv: ["tail", "/dev/zero"] });
  expect(outcome).toMatchObject({ signal: 9 });
  expect(await text(channel, { argv: ["echo", "alive"] })).toBe("alive");
  await channel.writeFile("/tmp/after", Buffer.from("x"));
  expect(await text(channel, { argv: sh(`test -e /proc/${(await bystander.started).pid} && echo runs`) })).toBe("runs");
  bystander.cancel();
});

test("told to power off, it does", async () => {
  await channel.powerOff();
  expect(await guest.vm.exited).toMatchObject({ reason: "guest", code: 0 });
});

test("a full disk is ENOSPC to whoever writes; reading and removing go on", async () => {
  const small = await guests.boot({ scratchBase: await scratchDisk(64) });
  const full = await run(small.channel, { argv: sh("cat /dev/zero > /var/fill") });
  expect([full.outcome, full.stderr.toString()]).toMatchObject([{ exitCode: 1 }, expect.stringContaining("No space left on device") as string]);
  const space = expect.objectContaining({ code: "INVALID_STATE", message: expect.stringContaining("No space left on device") as string }) as Error;
  await expect(small.channel.writeFile("/var/more", Buffer.alloc(200_000))).rejects.toEqual(space);
  const file = (path: string) => ({ path: Buffer.from(path), type: "file" as const, mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, sizeBytes: 200_000n, content: (async function* () { yield randomBytes(200_000); })() });
  await expect(small.channel.unpackTree("/var/tree", [{ ...file(""), type: "directory", mode: 0o755 }, file("a"), file("b")])).rejects.toEqual(space);
  expect((await small.channel.list("/var")).map(({ name }) => name.toString()).filter((name) => name.includes("pyro") || name === "tree")).toEqual([]);
  expect((await bytesOf(small.channel.readFile("/var/fill", { length: 4 }))).equals(Buffer.alloc(4))).toBe(true);
  await small.channel.remove("/var/fill");
  await small.channel.writeFile("/var/more", Buffer.alloc(200_000));
});
