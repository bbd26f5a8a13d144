import { expect, test } from "vitest";
import { parseDpkgStatus } from "../../src/environments/dpkg-status.js";

test("installed packages, sorted; what was removed, what continues a field and what is odd is left out", () => {
  const text = [
    "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13.dfsg-1",
    "Package: bash\nStatus: install ok installed\nDescription: x\n Version: 9\n Package: y\nVersion: 5.2.15-2+b7",
    "Package: gone\nStatus: deinstall ok config-files\nVersion: 1",
    "Package: half\nStatus: install ok half-installed\nVersion: 1",
    "Package: no-version\nStatus: install ok installed",
    "Package: ../etc\nStatus: install ok installed\nVersion: 1",
    "Package: control\nStatus: install ok installed\nVersion: 1\u001b[2J",
  ].join("\n\n");
  expect(parseDpkgStatus(text)).toEqual([
    { name: "bash", version: "5.2.15-2+b7" },
    { name: "zlib1g", version: "1:1.2.13.dfsg-1" },
  ]);
});

test("too many packages are refused", () => {
  expect(() => parseDpkgStatus("Package: a\nStatus: install ok installed\nVersion: 1\n\n".repeat(20_001))).toThrow("More than 20000 packages");
});
