import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Audit, type AuditRecord } from "../../src/net/audit.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-audit-"));
afterAll(() => rmSync(directory, { recursive: true }));

test("one line for each record, in two files of 4 MiB", () => {
  const file = join(directory, "audit");
  const audit = new Audit(file, () => {});
  for (let count = 0; count < 60_000; count++) audit.write({ type: "connect", protocol: "tcp", address: "203.0.113.5", port: count, rule: "public", name: "www.example.org" });
  audit.flush();
  expect(statSync(file).size).toBeLessThanOrEqual(4 * 1024 * 1024);
  expect(statSync(`${file}.1`).size).toBeLessThanOrEqual(4 * 1024 * 1024);
  expect(existsSync(`${file}.2`)).toBe(false);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const lines = (path: string) => readFileSync(path, "utf8").trim().split("\n").map((line) => JSON.parse(line) as AuditRecord);
  const ports = [...lines(`${file}.1`), ...lines(file)].map(({ port }) => port!);
  expect(ports.at(-1)).toBe(59_999);
  expect(ports).toEqual(Array.from({ length: ports.length }, (_, index) => 60_000 - ports.length + index));
});

test("the guest's words are harmless and short, and the last refusals are kept", () => {
  const seen: AuditRecord[] = [];
  const audit = new Audit(undefined, (record) => seen.push(record));
  audit.write({ type: "refused", protocol: "dns", name: `\u001b[2J\n${"x".repeat(1000)}`, rule: "public", reason: "\u202e" });
  expect(seen[0]!.name).toBe(`\\x1b[2J\\n${"x".repeat(248)}…`);
  expect(seen[0]!.reason).toBe("\\u202e");
  for (let port = 0; port < 100; port++) audit.write({ type: "refused", protocol: "tcp", address: "10.0.0.1", port, rule: "private" });
  expect(audit.lastRefusals.map(({ port }) => port)).toEqual(Array.from({ length: 32 }, (_, index) => 68 + index));
  expect(audit.counters.refusedTotal).toBe(101);
});

test("a file that can't be written costs lines and nothing else", () => {
  const file = join(directory, "gone", "audit");
  expect(() => new Audit(file, () => {})).toThrow("ENOENT");
  const audit = new Audit("/dev/full", () => {});
  audit.write({ type: "connect", protocol: "tcp" });
  expect(() => audit.flush()).not.toThrow();
});
