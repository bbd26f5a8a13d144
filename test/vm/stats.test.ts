import { expect, test } from "vitest";
import { pyro } from "./pyro.js";

test("vm stats: nothing of a VM that does not run, what the host spends on one that does", async () => {
  const id = (await pyro(["vm", "create", "debian:12-base", "--ttl-seconds", "300"])).stdout.trim();
  const stats = async () => JSON.parse((await pyro(["vm", "stats", id, "--json"])).stdout) as { host: Record<string, number>; guest: Record<string, number>; uptime_ms: number; remaining_ms: number };
  try {
    const created = await stats();
    expect(created).toEqual({ vm_id: id, state: "created", execution_mode: "pending", remaining_ms: expect.any(Number) as number });
    expect(created.remaining_ms).toBeLessThanOrEqual(300_000);
    expect((await pyro(["vm", "start", id])).status).toBe(0);
    const begun = await stats();
    expect(Object.keys(begun)).toEqual(["execution_mode", "guest", "host", "remaining_ms", "state", "uptime_ms", "vm_id"]);
    expect(Object.keys(begun.host)).toEqual(["cpu_ms", "disk_bytes", "memory_bytes"]);
    expect(begun.host["memory_bytes"]).toBeGreaterThan(1 << 20);
    expect(Object.keys(begun.guest)).toEqual(["cpu_time_ms", "disk_free_bytes", "disk_total_bytes", "memory_available_bytes", "memory_total_bytes", "processes"]);
    expect(begun.guest["memory_total_bytes"]).toBeGreaterThan(900 << 20);
    expect((await pyro(["vm", "exec", id, "--", "sh", "-c", "head -c 20000000 /dev/urandom >/root/x; sync"])).status).toBe(0);
    const later = await stats();
    expect(later.host["cpu_ms"]).toBeGreaterThan(begun.host["cpu_ms"]!);
    expect(later.host["disk_bytes"]! - begun.host["disk_bytes"]!).toBeGreaterThan(15_000_000);
    expect(later.uptime_ms).toBeGreaterThan(begun.uptime_ms);
    expect((await pyro(["vm", "stats", id])).stdout).toMatch(/^vm_id +vm-\w+\nstate +started\nuptime +\d+ s\nremaining +\d+ s\ncpu +\d+\.\d\d s\nmemory +[\d.]+ MB\ndisk +[\d.]+ MB\nguest memory +[\d.]+ [MG]B of [\d.]+ [MG]B available\nguest disk +[\d.]+ GB of [\d.]+ GB free\nguest cpu +\d+\.\d\d s by commands\nguest processes +\d+\n$/);
  } finally {
    await pyro(["vm", "delete", id]);
  }
  expect((await pyro(["vm", "stats", id])).stderr).toContain("There is no VM");
});
