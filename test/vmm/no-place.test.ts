// A VM whose keeper can't make its place ends before it has a port; one that we can't connect to does not go on without us.
import type * as FileSystem from "node:fs/promises";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { connectChannel } from "../../src/channel/index.js";
import { bootDeadline, startVm } from "../../src/vmm/index.js";
import { processesWith } from "../vm/pyro.js";

let unopened: string | undefined;
vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof FileSystem>();
  const open: typeof real.open = (path, ...rest) => (path === unopened ? Promise.reject(Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" })) : real.open(path, ...rest));
  return { ...real, open };
});

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-no-place-"));
  for (const name of ["kernel", "initramfs", "disk"]) writeFileSync(join(directory, name), "");
});
afterEach(() => {
  delete process.env["PYRO_QEMU"];
  unopened = undefined;
  rmSync(directory, { recursive: true, force: true });
});

const start = (place: string) =>
  startVm(
    { vcpuCount: 1, memMib: 128, kernel: join(directory, "kernel"), initramfs: join(directory, "initramfs"), rootDisk: join(directory, "disk"), temporaryDirectory: directory, place: { directory: place, disk: "new" } },
    { accelerator: "tcg" },
  );

it("is an error that says why, and nothing that comes when nobody waits for it any more", async () => {
  process.env["PYRO_QEMU"] = "/bin/true";
  const place = join(directory, "place");
  mkdirSync(join(place, "control"), { recursive: true }); // can't be replaced by a socket
  const vm = await start(place);
  const hello = bootDeadline(vm, (signal) => connectChannel(vm.ports[0]!, { fresh: true, signal }));
  await expect(hello).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringContaining(`the place ${place}: Address already in use`) as string });
  await vm.end();
});

it("where no descriptor is left to reach it by, it is ended", async () => {
  process.env["PYRO_QEMU"] = join(directory, "qemu");
  writeFileSync(process.env["PYRO_QEMU"], "#!/bin/sh\nexec sleep 300\n");
  chmodSync(process.env["PYRO_QEMU"], 0o755);
  unopened = join(directory, "place");
  mkdirSync(unopened);
  await expect(start(unopened)).rejects.toMatchObject({ code: "EMFILE" });
  expect(processesWith(unopened)).toEqual([]);
});
