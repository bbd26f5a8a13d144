// Guests started without anything above src/vmm and src/channel: the image, the machine and the connection are each test's own.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll } from "vitest";
import { connectChannel, type Channel, type ExecOutcome, type ExecRequest } from "../../src/channel/index.js";
import { openEnvironment, scratchDisk, type OpenEnvironment } from "../../src/environments/index.js";
import { bootDeadline, chooseAccelerator, startVm, type RunningVm, type VmSpec } from "../../src/vmm/index.js";

export interface Guest {
  vm: RunningVm;
  channel: Channel;
}

export interface Done {
  outcome: ExecOutcome;
  stdout: Buffer;
  stderr: Buffer;
}

/** What the tests of a file share: an environment, a directory, and the VMs that end with each test. */
export function useGuests(name = "debian:12-base") {
  let environment: OpenEnvironment;
  let scratchBase: string;
  let directory: string;
  let accelerator: "kvm" | "tcg";
  const running: RunningVm[] = [];
  const hello = (port: RunningVm["ports"][number], signal: AbortSignal) => connectChannel(port, { fresh: true, signal });

  beforeAll(async () => {
    environment = (await openEnvironment(name))!;
    scratchBase = await scratchDisk(10_240);
    directory = mkdtempSync(join(tmpdir(), "pyro-guest-test-"));
    const saysHello = async (...[port, signal]: Parameters<typeof hello>) => (await hello(port, signal)).close();
    accelerator = (await chooseAccelerator({ kernel: environment.kernel, initramfs: environment.initramfs, saysHello, setting: "auto", guestKey: environment.initramfsDigest })).accelerator;
  });
  const endAll = () => Promise.all(running.splice(0).map((vm) => vm.end()));
  afterAll(async () => {
    await endAll();
    rmSync(directory, { recursive: true, force: true });
  });

  const specOf = (changes: Partial<VmSpec> = {}): VmSpec => {
    const { kernel, initramfs, rootDisk } = environment;
    return { vcpuCount: 1, memMib: 256, kernel, initramfs, rootDisk, scratchBase, temporaryDirectory: directory, ttlSeconds: 1200, ...changes };
  };
  const start = async (changes: Partial<VmSpec> = {}, without: readonly ("rootDisk" | "scratchBase")[] = []): Promise<RunningVm> => {
    const spec = specOf(changes);
    for (const each of without) delete spec[each];
    const vm = await startVm(spec, { accelerator });
    running.push(vm);
    return vm;
  };
  return {
    specOf,
    accelerator: () => accelerator,
    start,
    boot: async (...args: Parameters<typeof start>): Promise<Guest> => {
      const vm = await start(...args);
      return { vm, channel: await bootDeadline(vm, (abort) => hello(vm.ports[0]!, abort)) };
    },
    hello: (vm: RunningVm) => bootDeadline(vm, (abort) => hello(vm.ports[0]!, abort)),
    endAfterEach: () => afterEach(endAll),
    path: (file: string) => join(directory, file),
    environment: () => environment,
  };
}

/** Runs to the end, all output kept. */
export async function run(channel: Channel, request: ExecRequest, input?: Iterable<Buffer>): Promise<Done> {
  const guest = channel.exec({ ...request, stdin: input !== undefined });
  if (input !== undefined) {
    const { Readable: Source } = await import("node:stream");
    Source.from(input).pipe(guest.stdin!);
  }
  const [outcome, stdout, stderr] = await Promise.all([guest.result, bytesOf(guest.stdout), bytesOf(guest.stderr)]);
  return { outcome, stdout, stderr };
}

/** Standard output of a command that must succeed, without its last newline. */
export async function text(channel: Channel, request: ExecRequest): Promise<string> {
  const { outcome, stdout, stderr } = await run(channel, request);
  if (!("exitCode" in outcome) || outcome.exitCode !== 0) throw new Error(`${JSON.stringify(outcome)}: ${stderr.toString()}`);
  return stdout.toString().replace(/\n$/, "");
}

export async function bytesOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Waits until what `stream` has said matches; gives all of it. */
export function said(stream: Readable, pattern: RegExp, ms = 120_000): Promise<string> {
  return new Promise((resolve, reject) => {
    let all = "";
    const timer = setTimeout(() => done(new Error(`no ${pattern} within ${ms} ms in: ${all}`)), ms);
    const onData = (chunk: Buffer) => {
      all += chunk.toString("latin1");
      if (pattern.test(all)) done();
    };
    const onEnd = () => done(new Error(`no ${pattern} up to the end: ${all}`));
    const done = (error?: Error) => {
      clearTimeout(timer);
      stream.off("data", onData).off("end", onEnd);
      if (error === undefined) resolve(all);
      else reject(error);
    };
    stream.on("data", onData).on("end", onEnd);
  });
}

/** A static program from C source, as bytes. */
export function staticProgram(source: string, path: string): void {
  writeFileSync(`${path}.c`, source);
  execFileSync("gcc", ["-static", "-Os", "-s", "-o", path, `${path}.c`]);
}
