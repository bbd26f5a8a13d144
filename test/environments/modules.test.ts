import { expect, test } from "vitest";
import { PyroError } from "../../src/base/error.js";
import { moduleName, orderModules, readModuleInfo } from "../../src/environments/modules.js";
import { makeModule, moduleFor, seeded } from "./fixtures.js";

test("a module's dependencies and kernel are read from its .modinfo", () => {
  expect(readModuleInfo(moduleFor("virtio,virtio-ring"), "virtio_mmio")).toEqual({ depends: ["virtio", "virtio_ring"], release: "6.1.0-1-test" });
  expect(readModuleInfo(moduleFor(""), "x")).toEqual({ depends: [], release: "6.1.0-1-test" });
});

const broken: [string, Buffer][] = [
  ["empty", Buffer.alloc(0)],
  ["text", Buffer.alloc(100, "a")],
  ["cut in the header", moduleFor("a").subarray(0, 63)],
  ["cut in the section table", moduleFor("a").subarray(0, -1)],
  ["without vermagic", makeModule(["depends=a"])],
  ["depends on a path", makeModule(["depends=../../x", "vermagic=6.1 SMP"])],
  ["depends on too many", makeModule([`depends=${"a,".repeat(257)}`, "vermagic=6.1 SMP"])],
  ["32 bits", changed(4, 1)],
  ["big-endian", changed(5, 2)],
  ["section table beyond the end", changed(46, 0xff)],
  ["names' section out of range", changed(62, 9)],
];

test.each(broken)("a module that is damaged: %s", (_, elf) => {
  expect(() => readModuleInfo(elf, "x")).toThrow(expect.objectContaining({ code: "ENVIRONMENT_INVALID", message: expect.stringContaining("The kernel module x can't be used") }));
});

test("a module's name out of a package does not steer the terminal", () => {
  expect(() => readModuleInfo(Buffer.alloc(0), "x\u009b2J\u202e")).toThrow(String.raw`The kernel module x\x9b2J\u202e can't be used`);
});

test("any bytes changed: read, or refused as ENVIRONMENT_INVALID", () => {
  const random = seeded(1);
  for (let round = 0; round < 20_000; round++) {
    const elf = Buffer.from(moduleFor("virtio,virtio_ring"));
    for (let change = 0; change <= random(4); change++) elf[random(elf.length)] = random(256);
    try {
      readModuleInfo(elf.subarray(0, random(4) === 0 ? random(elf.length) : elf.length), "x");
    } catch (error) {
      if (!(error instanceof PyroError) || error.code !== "ENVIRONMENT_INVALID") throw error;
    }
  }
});

const info = (...depends: string[]) => ({ depends, release: "6.1" });

test("the order is what each needs before itself, otherwise as wanted", () => {
  const modules = new Map([
    ["virtio_mmio", info("virtio", "virtio_ring")],
    ["virtio", info("virtio_ring")],
    ["virtio_ring", info()],
    ["erofs", info("libcrc32c")],
    ["libcrc32c", info("crc32c")],
    ["unwanted", info()],
  ]);
  expect(orderModules(["virtio_mmio", "erofs"], modules, (name) => name === "crc32c")).toEqual(["virtio_ring", "virtio", "virtio_mmio", "libcrc32c", "erofs"]);
});

test("a module that is neither there nor built in, and a circle, are refused", () => {
  expect(() => orderModules(["a"], new Map([["a", info("b")]]), () => false)).toThrow("The kernel module b, which a needs, is not there.");
  expect(() => orderModules(["a"], new Map([["a", info("b")], ["b", info("a")]]), () => false)).toThrow("in a circle, through a");
  const chain = new Map(Array.from({ length: 101 }, (_, index) => [`m${index}`, info(...(index < 100 ? [`m${index + 1}`] : []))] as const));
  expect(() => orderModules(["m0"], chain, () => false)).toThrow("More than 99 kernel modules");
});

test("a module's name", () => {
  expect(moduleName("lib/modules/6.1/kernel/drivers/char/hw_random/virtio-rng.ko")).toBe("virtio_rng");
});

function changed(at: number, value: number): Buffer {
  const elf = Buffer.from(moduleFor("a"));
  elf[at] = value;
  return elf;
}
