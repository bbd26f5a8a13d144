// Ports that one host process after another connects to: QEMU listens on a socket for each, and the guest sees its host side come and go.
import { constants, mkdtempSync, rmSync } from "node:fs";
import { open, writeFile, type FileHandle } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { keepChild, type KeptChild } from "../../src/base/child.js";
import { settings } from "../../src/base/settings.js";
import { connectChannel, type Channel } from "../../src/channel/index.js";
import { encodeFrame } from "../../src/channel/codec.js";
import { openEnvironment, scratchDisk, type OpenEnvironment } from "../../src/environments/index.js";
import { Descriptors, bootCommand, forkCommand, monitorFd, type Disks, type MemoryFile } from "../../src/vmm/backends/qemu-command.js";
import { emptyOverlay } from "../../src/vmm/qcow2.js";
import { Qmp } from "../../src/vmm/qmp.js";
import { tscKhz } from "../../src/vmm/tsc.js";
import { chooseAccelerator, type VmSpec } from "../../src/vmm/index.js";
import { bytesOf, run, text } from "./guest.js";

interface Machine {
  child: KeptChild;
  qmp: Qmp;
  /** A client of the port; it may have to wait for the one before it. */
  client(port?: number): Promise<Socket>;
}

let environment: OpenEnvironment;
let scratchBase: string;
let accelerator: "kvm" | "tcg";
let directory: string;
const machines: Machine[] = [];
const sockets: Socket[] = [];
const files: FileHandle[] = [];

beforeAll(async () => {
  environment = (await openEnvironment("debian:12-base"))!;
  scratchBase = await scratchDisk(10_240);
  directory = mkdtempSync(join(tmpdir(), "pyro-reconnect-"));
  const saysHello = async (...[port, signal]: [Socket, AbortSignal]) => (await connectChannel(port, { fresh: true, signal })).close();
  accelerator = (await chooseAccelerator({ kernel: environment.kernel, initramfs: environment.initramfs, saysHello: saysHello as never, setting: "auto", guestKey: environment.initramfsDigest })).accelerator;
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(machines.splice(0).map(({ child }) => child.end()));
  await Promise.all(files.splice(0).map((file) => file.close()));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const spec = (): VmSpec => ({ vcpuCount: 1, memMib: 256, kernel: environment.kernel, initramfs: environment.initramfs, rootDisk: environment.rootDisk, scratchBase, temporaryDirectory: directory, ports: 2 });

async function opened(path: string, flags = constants.O_RDONLY): Promise<FileHandle> {
  const file = await open(path, flags, 0o600);
  files.push(file);
  return file;
}

async function overlay(name: string): Promise<FileHandle> {
  const top = await opened(join(directory, name), constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC);
  const bytes = emptyOverlay(10_240 * 2 ** 20);
  await top.write(bytes, 0, bytes.length, 0);
  return top;
}

/** QEMU with the ports' words replaced: pairs of sockets become sockets that it listens on. */
async function start(name: string, words: string[], stdio: Descriptors, listening: boolean): Promise<Machine> {
  const path = (port: string | number) => join(directory, `${name}.${port}`);
  const args = listening ? words.map((word) => word.replace(/^socket,id=port(\d),fd=\d+$/, (_, port: string) => `socket,id=port${port},path=${path(port)},server=on,wait=off`)) : words;
  const child = await keepChild(settings.qemu(), args, { stdio: stdio.list, graceMs: 0, ttlSeconds: 280 });
  for (const stream of child.stdio) stream?.resume();
  const machine: Machine = {
    child,
    qmp: new Qmp(child.stdio[monitorFd]!),
    client: async (port = 0) => {
      for (const end = Date.now() + 60_000; ; await sleep(5)) {
        const socket = connect(path(port));
        sockets.push(socket);
        const error = await new Promise<Error | undefined>((resolve) => socket.once("connect", () => resolve(undefined)).once("error", resolve));
        if (error === undefined) return socket.on("error", () => {});
        if (Date.now() > end) throw error;
      }
    },
  };
  machines.push(machine);
  return machine;
}

async function boot(name: string, listening: boolean, memory?: MemoryFile): Promise<Machine> {
  const stdio = new Descriptors();
  const disks: Disks = { root: await opened(environment.rootDisk), scratch: { base: await opened(scratchBase), top: await overlay(`${name}.scratch`) } };
  return start(name, bootCommand(stdio, spec(), accelerator, await tscKhz(), disks, memory), stdio, listening);
}

const channelTo = async (machine: Machine, port = 0): Promise<Channel> => connectChannel(await machine.client(port), { deadlineMs: 100_000 });

test("200 clients one after another, whatever became of the one before", async () => {
  const machine = await boot("many", true);
  for (let count = 0; count < 200; count++) {
    const port = count % 2;
    const socket = await machine.client(port);
    const next = count % 5 === 4 ? machine.client(port) : undefined; // in line behind this one
    const channel = await connectChannel(socket, { deadlineMs: 100_000 });
    expect(await text(channel, { argv: ["echo", String(count)] })).toBe(String(count));
    switch (count % 5) {
      case 0: // output that nobody has read
        await channel.exec({ argv: ["sh", "-c", "cat /dev/zero & cat /dev/zero >&2"] }).started;
        break;
      case 1: // in the middle of a frame
        socket.write(encodeFrame(0x03, 1000, Buffer.alloc(60_000, 1)).subarray(0, 1 + count * 250));
        await new Promise((resolve) => socket.write("", resolve));
        break;
      case 2: // a file that is half written, and requests without answers
        channel.writeFile(`/tmp/half-${count}`, endless()).catch(() => {});
        for (let many = 0; many < 20; many++) channel.stat("/").catch(() => {});
        break;
      case 3: // gone before it has said anything
        channel.close();
        (await machine.client(port)).destroy();
        break;
      default:
    }
    if (next === undefined) {
      channel.close();
      continue;
    }
    const waiting = next.then((client) => connectChannel(client, { deadlineMs: 100_000 }));
    expect(await text(channel, { argv: ["echo", "still"] })).toBe("still");
    channel.close();
    const second = await waiting;
    expect(await text(second, { argv: ["echo", "second"] })).toBe("second");
    second.close();
  }
  // Nothing of them is left: no command, no half of a file.
  const last = await channelTo(machine);
  await expect.poll(async () => (await last.stats()).processes).toBe(0);
  expect((await last.list("/tmp")).map(({ name }) => name.toString())).toEqual([]);
  last.close();
});

test("60 clients in line at a guest that has no time: each one's first words come with the notice that the one before is gone", async () => {
  const machine = await boot("line", true);
  const first = await channelTo(machine, 1);
  await first.startJob("busy", { argv: ["sh", "-c", "for i in 1 2 3 4; do while :; do :; done & done; wait"] });
  let before = await channelTo(machine);
  for (let count = 0; count < 60; count++) {
    // Its SYNC is written while the one before is still there.
    const next = connectChannel(await machine.client(), { deadlineMs: 100_000 });
    expect(await before.ping()).toBeGreaterThan(0);
    before.close();
    before = await next;
  }
  expect(await before.ping()).toBeGreaterThan(0);
  await first.killJob("busy", 9, "all");
});

test("a client's commands end with it, its job does not", async () => {
  const machine = await boot("job", true);
  const first = await channelTo(machine);
  await first.startJob("job", { argv: ["sh", "-c", "echo begun; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo done"] });
  await first.exec({ argv: ["sleep", "4718"] }).started;
  first.close();
  const second = await channelTo(machine);
  const attached = second.attachJob("job");
  expect((await run(second, { argv: ["grep", "-qxz", "4718", "/proc/[0-9]*/cmdline"] })).outcome).not.toMatchObject({ exitCode: 0 });
  await second.writeFile("/tmp/go", Buffer.alloc(0));
  expect((await bytesOf(attached.stdout)).toString()).toBe("begun\ndone\n");
  expect(await attached.result).toMatchObject({ exitCode: 0 });
});

test("two ports at once, one of which nobody has ever used", async () => {
  const machine = await boot("two", true);
  const [first, second] = await Promise.all([channelTo(machine, 0), channelTo(machine, 1)]);
  expect(await Promise.all([text(first, { argv: ["echo", "a"] }), text(second, { argv: ["echo", "b"] })])).toEqual(["a", "b"]);
});

test.each([
  ["connected with nothing under way", true],
  ["never connected", false],
])("a fork's first client on a port that was, when it was frozen, %s", async (_, wasConnected) => {
  // Frozen with ports that are pairs of sockets, or that wait for a client; forked with ports that wait.
  const memory = join(directory, "memory");
  const file = await opened(memory, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC);
  await file.truncate(256 * 2 ** 20);
  const template = await boot("template", !wasConnected, { file, share: true, sealable: false });
  if (wasConnected) {
    const channel = await connectChannel(template.child.stdio[5]!, { fresh: true, deadlineMs: 100_000 });
    expect(await text(channel, { argv: ["echo", "warm"] })).toBe("warm");
  } else {
    const channel = await channelTo(template, 1);
    expect(await text(channel, { argv: ["echo", "warm"] })).toBe("warm");
  }
  const state = await migrated(template);
  await template.child.end();
  const statePath = join(directory, "state");
  await writeFile(statePath, state);
  for (let fork = 0; fork < 3; fork++) {
    const stdio = new Descriptors();
    const disks: Disks = { root: await opened(environment.rootDisk), scratch: { base: await opened(scratchBase), frozen: await opened(join(directory, "template.scratch")), top: await overlay("fork.scratch") } };
    const words = forkCommand(stdio, spec(), accelerator, disks, { file: await opened(memory), share: false, sealable: false });
    const stateFd = stdio.add((await opened(statePath)).fd);
    const machine = await start(`fork${fork}`, words, stdio, true);
    // A client that is in line before there is a guest, or one that comes later.
    const early = fork === 0 ? undefined : channelTo(machine);
    await machine.qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: true }] });
    await machine.qmp.execute("migrate-incoming", { uri: `fd:${stateFd}` });
    if (fork === 0) await sleep(1000);
    for (let client = 0; client < 3; client++) {
      const channel = client === 0 && early !== undefined ? await early : await channelTo(machine);
      expect(await text(channel, { argv: ["echo", String(client)] })).toBe(String(client));
      channel.close();
    }
    const other = await channelTo(machine, 1);
    expect(await text(other, { argv: ["echo", "other"] })).toBe("other");
    await machine.child.end();
  }
});

/** Its devices' state, as it goes over a socket. */
async function migrated({ qmp }: Machine): Promise<Buffer> {
  const path = join(directory, "migration");
  const received = new Promise<Buffer>((resolve, reject) => {
    const server = createServer((socket) => {
      server.close();
      bytesOf(socket).then(resolve, reject);
    });
    server.listen(path, () => {
      qmp
        .execute("migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: true }] })
        .then(() => qmp.execute("migrate", { uri: `unix:${path}` }))
        .catch(reject);
    });
  });
  const state = await received;
  await expect.poll(async () => ((await qmp.execute("query-migrate")) as { status: string }).status).toBe("completed");
  return state;
}

async function* endless(): AsyncGenerator<Buffer> {
  for (;;) yield Buffer.alloc(65_536);
}
