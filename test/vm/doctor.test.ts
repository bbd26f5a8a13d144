import { closeSync, openSync } from "node:fs";
import { expect, test } from "vitest";
import { pyro } from "./pyro.js";

test("doctor boots a guest and says what it runs under", async () => {
  const result = await pyro(["doctor", "--json"]);
  const report = JSON.parse(result.stdout) as {
    runtime: string;
    accelerator: string;
    kvm: { exists: boolean; readable: boolean; writable: boolean; guest_ran?: boolean; reason?: string };
    capabilities: Record<string, boolean>;
    qemu_version: string;
    checks: { name: string; ok: boolean }[];
  };
  expect(result.status).toBe(0);
  expect(report.runtime).toBe("PASS");
  expect(report.capabilities).toEqual({ guest_exec: true, guest_network: true, vm_boot: true });
  expect(report.qemu_version).toMatch(/^\d+\.\d+/);
  expect(report.checks).toContainEqual(expect.objectContaining({ name: "mcp clients", ok: true, detail: "pyro is configured in none" }));
  expect(report.checks).toContainEqual({ name: "network", ok: true, detail: "a guest's question reached its gateway" });
  // What it says of KVM has to fit what it uses.
  expect(report.accelerator).toBe(report.kvm.guest_ran === true ? "kvm" : "tcg");
  expect(report.kvm.writable).toBe(canOpenKvm());
  if (report.accelerator === "tcg") expect(report.kvm.reason).toMatch(/\S/);
});

test("doctor for people", async () => {
  const result = await pyro(["doctor"]);
  expect(result.status).toBe(0);
  expect(result.stdout).toMatch(/^runtime: PASS$/m);
  expect(result.stdout).toMatch(/^kvm: exists=(yes|no) readable=(yes|no) writable=(yes|no) guest_ran=/m);
});

test("without QEMU doctor fails and names the command that mends it", async () => {
  const result = await pyro(["doctor"], { env: { PYRO_QEMU: "qemu-that-is-not-there" } });
  expect(result.status).toBe(1);
  expect(result.stdout).toMatch(/^runtime: FAIL$/m);
  expect(result.stdout).toContain("qemu-that-is-not-there is not installed");
});

test("PYRO_ACCELERATOR=kvm either runs a guest under KVM or says why not", async () => {
  const result = await pyro(["run", "debian:12-base", "--json", "--", "true"], { env: { PYRO_ACCELERATOR: "kvm" } });
  if (result.status === 0) return;
  expect(result.status).toBe(125);
  const { error } = JSON.parse(result.stderr) as { error: { code: string; message: string; hint: string } };
  expect(error.message).toContain("KVM");
  expect(error.hint).toMatch(/PYRO_ACCELERATOR/);
});

function canOpenKvm(): boolean {
  try {
    closeSync(openSync("/dev/kvm", "r+"));
    return true;
  } catch {
    return false;
  }
}
