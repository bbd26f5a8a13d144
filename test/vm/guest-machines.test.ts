// Guests in unusual machines and from unusual images: what the guest program needs, and how it fails without it.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { writeErofs } from "../../src/environments/erofs.js";
import { readTar } from "../../src/environments/tar.js";
import { archive, stream, type Member } from "../environments/tar-maker.js";
import { bytesOf, run, staticProgram, text, useGuests } from "./guest.js";

const guests = useGuests();
guests.endAfterEach();

async function image(name: string, ...members: Member[]): Promise<string> {
  const path = guests.path(name);
  await writeErofs(readTar(stream(archive(...members))), path);
  return path;
}

test("an image with one static program and nothing else", async () => {
  const program = guests.path("hello");
  staticProgram('#include <stdio.h>\n#include <unistd.h>\nint main(int n, char **v) { char at[99]; printf("%d %s %s\\n", n, v[1], getcwd(at, 99)); return 7; }', program);
  const rootDisk = await image("one.erofs", { name: "hello", mode: 0o755, data: readFileSync(program) });
  const { channel } = await guests.boot({ rootDisk });
  const { outcome, stdout } = await run(channel, { argv: ["/hello", "there"] });
  expect(stdout.toString()).toBe("2 there /\n");
  expect(outcome).toMatchObject({ exitCode: 7 });
  expect((await run(channel, { shell: "true" })).outcome).toMatchObject({
    failure: { errno: 2, stage: "exec", message: "the image has no shell (/bin/bash, /bin/sh): give the command as a list of arguments" },
  });
  await channel.identify({ vmId: "vm-one", hostname: "vm-one", machineId: "0123456789abcdef0123456789abcdef" });
  expect((await run(channel, { argv: ["/hello", "x"], user: "1000:1000", tty: { rows: 5, columns: 9 } })).stdout.toString()).toBe("2 x /\r\n");
  expect((await channel.list("/")).map((each) => each.name.toString()).sort()).toEqual(["dev", "etc", "hello", "proc", "run", "sys", "tmp"]);
});

test("an empty image", async () => {
  const { channel } = await guests.boot({ rootDisk: await image("empty.erofs") });
  await channel.writeFile("/new", Buffer.from("content"));
  expect((await bytesOf(channel.readFile("/new"))).toString()).toBe("content");
  expect((await run(channel, { argv: ["true"] })).outcome).toMatchObject({ failure: { message: "true: command not found" } });
});

test("without a scratch disk, writes go to memory", async () => {
  const { channel } = await guests.boot({}, ["scratchBase"]);
  expect(await text(channel, { argv: ["/bin/sh", "-c", "echo x > /usr/new; cat /usr/new; stat -f -c %T /usr"] })).toMatch(/^x\noverlayfs$/);
});

test("pyro.probe says hello without any disk", async () => {
  const { channel } = await guests.boot({ kernelArguments: ["pyro.probe"], memMib: 128 }, ["rootDisk", "scratchBase"]);
  expect(await channel.ping()).toBeGreaterThan(0);
});

for (const [vcpuCount, memMib] of [[1, 128], [2, 256], [4, 512], [1, 8192]] as const) {
  test(`${vcpuCount} vCPUs, ${memMib} MiB`, async () => {
    const { channel } = await guests.boot({ vcpuCount, memMib });
    expect(await text(channel, { argv: ["nproc"] })).toBe(String(vcpuCount));
    const kib = Number(/^MemTotal: +([0-9]+) kB$/m.exec(await text(channel, { argv: ["cat", "/proc/meminfo"] }))![1]);
    expect(kib).toBeLessThan(memMib * 1024);
    expect(kib).toBeGreaterThan(memMib * 1024 * 0.95 - 60_000);
    expect((await run(channel, { shell: "head -c 20000000 /dev/urandom > /tmp/x && wc -c < /tmp/x" })).stdout.toString()).toBe("20000000\n");
  });
}

test("a root disk that is missing or no file system fails with the guest's reason", async () => {
  const rootDisk = guests.path("garbage");
  writeFileSync(rootDisk, Buffer.alloc(1 << 20, 0x5a));
  const garbage = await guests.start({ rootDisk });
  await expect(guests.hello(garbage)).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringMatching(/powered off[^]*pyro-guest: fatal: mount \/dev\/vd[ab] \(erofs\) on \/lower/) as string });
  const missing = await guests.start({}, ["rootDisk"]);
  await expect(guests.hello(missing)).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringMatching(/powered off[^]*no disk with the serial "root"/) as string });
  expect((await missing.exited).reason).toBe("guest");
});

test("a guest that writes while the host's disk is full gets an error, and goes on", async (context) => {
  if (process.getuid!() !== 0) return context.skip("a small file system can only be mounted by root");
  const small = guests.path("small");
  mkdirSync(small);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=30m", "tmpfs", small]);
  try {
    const { vm, channel } = await guests.boot({ temporaryDirectory: small });
    const { outcome, stderr } = await run(channel, { shell: "dd if=/dev/urandom of=/usr/x bs=1M count=60 conv=fsync" });
    expect(outcome).toMatchObject({ exitCode: 1 });
    expect(stderr.toString()).toMatch(/Input\/output error|No space left/);
    expect(await channel.ping()).toBeGreaterThan(0);
    await vm.end();
  } finally {
    execFileSync("umount", ["-l", small]);
  }
});
