// A VM whose keeper can't make its place ends before it has a port.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { connectChannel } from "../../src/channel/index.js";
import { bootDeadline, startVm } from "../../src/vmm/index.js";

let directory: string;
beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), "pyro-no-place-"))));
afterEach(() => {
  delete process.env["PYRO_QEMU"];
  rmSync(directory, { recursive: true, force: true });
});

it("is an error that says why, and nothing that comes when nobody waits for it any more", async () => {
  process.env["PYRO_QEMU"] = "/bin/true";
  for (const name of ["kernel", "initramfs", "disk"]) writeFileSync(join(directory, name), "");
  const place = join(directory, "place");
  mkdirSync(join(place, "control"), { recursive: true }); // can't be replaced by a socket
  const vm = await startVm(
    { vcpuCount: 1, memMib: 128, kernel: join(directory, "kernel"), initramfs: join(directory, "initramfs"), rootDisk: join(directory, "disk"), temporaryDirectory: directory, place: { directory: place, disk: "new" } },
    { accelerator: "tcg" },
  );
  const hello = bootDeadline(vm, (signal) => connectChannel(vm.ports[0]!, { fresh: true, signal }));
  await expect(hello).rejects.toMatchObject({ code: "BOOT_FAILED", message: expect.stringContaining(`the place ${place}: Address already in use`) as string });
  await vm.end();
});
