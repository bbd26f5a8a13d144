import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { emptyOverlay } from "../../src/vmm/qcow2.js";

it("writes the header that the format's description has", () => {
  const image = emptyOverlay(2 ** 31);
  expect(image.length).toBe(262_144);
  expect(image.subarray(0, 112).toString("hex")).toBe(
    "514649fb" + "00000003" + "0000000000000000" + "00000000" + "00000010" + "0000000080000000" + "00000000" + "00000004" + "0000000000030000" + "0000000000010000" + "00000001" + "00000000" + "0000000000000000" +
      "0000000000000000".repeat(3) + "00000004" + "00000068" + "0000000000000000",
  );
  expect(image.subarray(65_536, 65_544).toString("hex")).toBe("0000000000020000");
  expect(image.subarray(131_072, 131_084).toString("hex")).toBe("000100010001000100000000");
});

it.each([[512, 1], [2 ** 29, 1], [2 ** 29 + 512, 2], [10_240 * 2 ** 20, 20], [2 ** 42, 8192]])("gives a disk of %d bytes %d first-level entries", (size, entries) => {
  expect(emptyOverlay(size).readUInt32BE(36)).toBe(entries);
});

it.each([0, -512, 511, 513, 2 ** 42 + 512, Number.NaN, 512.5])("refuses a disk of %d bytes", (size) => {
  expect(() => emptyOverlay(size)).toThrow(/a multiple of 512, at most 4398046511104/);
});

const checker = "/usr/bin/qemu-img";
it.skipIf(!existsSync(checker))(`is free of faults for QEMU's own checker (skipped where there is no ${checker})`, async () => {
  const directory = await mkdtemp(join(tmpdir(), "pyro-qcow2-test-"));
  try {
    await writeFile(join(directory, "overlay"), emptyOverlay(10_240 * 2 ** 20));
    const { stdout } = await promisify(execFile)(checker, ["check", "-f", "qcow2", join(directory, "overlay")]);
    expect(stdout).toContain("No errors were found");
  } finally {
    await rm(directory, { recursive: true });
  }
});
