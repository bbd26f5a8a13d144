import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseVmRecord, publicVm, readVmRecord, writeVmRecord, type VmRecord } from "../../../src/core/vms/record.js";

let root: string;
beforeAll(() => void (root = mkdtempSync(join(tmpdir(), "pyro-record-test-"))));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
const newDirectory = () => {
  const directory = join(root, String(count++));
  mkdirSync(directory);
  return directory;
};

const record: VmRecord = {
  vmId: "vm-abcd2345",
  environment: "debian:12",
  state: "failed",
  vcpuCount: 2,
  memMib: 1024,
  diskMib: 10_240,
  ttlSeconds: 600,
  createdAt: "2026-11-24T12:00:00.000Z",
  expiresAt: "2026-11-24T12:10:00.000Z",
  networkEnabled: false,
  executionMode: "guest",
  accelerator: "tcg",
  lastError: "its keeper was killed",
  allowHostCompat: false,
  environmentDigest: `sha256:${"0123456789abcdef".repeat(4)}`,
  bootMs: 321,
  hostBootId: "6c1e5a7e-8f0b-4a0e-9a52-0d3f1f6f1c2b",
  expiresAtUptimeMs: 5_600_000,
};
const text = `{
  "accelerator": "tcg",
  "allow_host_compat": false,
  "boot_ms": 321,
  "created_at": "2026-11-24T12:00:00.000Z",
  "disk_mib": 10240,
  "environment": "debian:12",
  "environment_digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
  "execution_mode": "guest",
  "expires_at": "2026-11-24T12:10:00.000Z",
  "expires_at_uptime_ms": 5600000,
  "host_boot_id": "6c1e5a7e-8f0b-4a0e-9a52-0d3f1f6f1c2b",
  "last_error": "its keeper was killed",
  "mem_mib": 1024,
  "network_enabled": false,
  "schema_version": 1,
  "state": "failed",
  "ttl_seconds": 600,
  "vcpu_count": 2,
  "vm_id": "vm-abcd2345"
}
`;

test("what is written is what is read, for this user alone", async () => {
  const directory = newDirectory();
  await writeVmRecord(directory, record);
  expect(readFileSync(join(directory, "vm.json"), "utf8")).toBe(text);
  expect(statSync(join(directory, "vm.json")).mode & 0o777).toBe(0o600);
  expect(await readVmRecord(directory)).toEqual(record);
  expect(readdirSync(directory)).toEqual(["vm.json"]);
});

const networked: VmRecord = {
  ...record,
  networkEnabled: true,
  network: {
    policy: { mode: "allow_list", allowHosts: ["example.org:443"], denyHosts: [], allowNets: ["10.1.0.0/16"] },
    publish: [{ protocol: "tcp", hostIp: "127.0.0.1", hostPort: 0, guestPort: 80 }],
    secrets: [{ name: "TOKEN", host: "example.org" }, { name: "OTHER", host: "example.org", file: "/run/other" }],
  },
  variables: ["TOKEN=pyro_0", "X=a=b"],
  publishedPorts: [{ protocol: "tcp", hostIp: "127.0.0.1", hostPort: 39_973, guestPort: 80 }],
};

test("a network is written and read, and is not for everybody", async () => {
  const directory = newDirectory();
  await writeVmRecord(directory, networked);
  expect(await readVmRecord(directory)).toEqual(networked);
  expect(JSON.parse(readFileSync(join(directory, "vm.json"), "utf8"))).toMatchObject({
    network: {
      policy: { mode: "allow_list", allow_hosts: ["example.org:443"], deny_hosts: [], allow_nets: ["10.1.0.0/16"] },
      publish: [{ protocol: "tcp", host_ip: "127.0.0.1", host_port: 0, guest_port: 80 }],
      secrets: [{ name: "TOKEN", host: "example.org" }, { name: "OTHER", host: "example.org", file: "/run/other" }],
    },
    variables: ["TOKEN=pyro_0", "X=a=b"],
    published_ports: [{ protocol: "tcp", host_ip: "127.0.0.1", host_port: 39_973, guest_port: 80 }],
  });
  expect(publicVm(networked)).toEqual(publicVm({ ...record, networkEnabled: true }));
});

test("published ports are for everybody, while the VM is started; what is none is left out", () => {
  const { publishedPorts: ports } = networked;
  expect(publicVm({ ...networked, state: "started" }).publishedPorts).toEqual([{ protocol: "tcp", hostIp: "127.0.0.1", hostPort: 39_973, guestPort: 80 }]);
  for (const state of ["created", "stopped", "failed"] as const) expect(publicVm({ ...networked, state })).not.toHaveProperty("publishedPorts");
  const read = (published: unknown) => parseVmRecord(JSON.stringify({ ...(JSON.parse(text) as object), published_ports: published }));
  for (const wrong of [5, [{}], [{ ...ports![0], host_port: 65_536 }]]) expect(read(wrong)).toEqual(record);
});

test("a network without a policy that can be read never comes to life", () => {
  const written = (change: (json: { network?: Record<string, unknown>; network_enabled: boolean }) => void) => {
    const json = JSON.parse(text) as { network?: Record<string, unknown>; network_enabled: boolean };
    json.network_enabled = true;
    json.network = { policy: { mode: "public", allow_hosts: [], deny_hosts: [], allow_nets: [] }, publish: [], secrets: [] };
    change(json);
    return parseVmRecord(JSON.stringify(json));
  };
  expect(written(() => {})).toMatchObject({ networkEnabled: true, network: { policy: { mode: "public" } } });
  expect(written((json) => delete json.network)).toBe(undefined);
  expect(written((json) => (json.network_enabled = false))).toBe(undefined);
  for (const [key, value] of [
    ["policy", undefined], ["policy", "public"], ["policy", { mode: "open", allow_hosts: [], deny_hosts: [], allow_nets: [] }], ["policy", { mode: "public" }], ["policy", { mode: "public", allow_hosts: [1], deny_hosts: [], allow_nets: [] }],
    ["publish", undefined], ["publish", [{}]], ["publish", [{ protocol: "sctp", host_ip: "127.0.0.1", host_port: 1, guest_port: 1 }]], ["publish", [{ protocol: "tcp", host_ip: "127.0.0.1", host_port: 65_536, guest_port: 1 }]],
    ["secrets", undefined], ["secrets", [{ name: "A" }]], ["secrets", [{ name: "A", host: "b", file: 5 }]], ["secrets", Array.from({ length: 1025 }, () => ({ name: "A", host: "b" }))],
  ] as const) expect([key, value, written((json) => (json.network![key] = value))]).toEqual([key, value, undefined]);
});

test("no process id is kept: one that is used again can't be taken for a VM", () => {
  expect(text).not.toMatch(/pid/);
});

test("what is for everybody is the contract's and nothing else", () => {
  expect(Object.keys(publicVm(record)).sort()).toEqual(["accelerator", "createdAt", "diskMib", "environment", "executionMode", "expiresAt", "lastError", "memMib", "networkEnabled", "state", "ttlSeconds", "vcpuCount", "vmId"]);
});

test("a failure that carries a whole console keeps the record readable", async () => {
  const directory = newDirectory();
  await writeVmRecord(directory, { ...record, lastError: "\u0001\u{1f525}\n".repeat(30_000) });
  expect(statSync(join(directory, "vm.json")).size).toBeLessThan(32_768);
  const kept = (await readVmRecord(directory))!;
  expect({ ...kept, lastError: "" }).toEqual({ ...record, lastError: "" });
  expect(kept.lastError!.startsWith("\u0001\u{1f525}\n\u0001")).toBe(true);
  expect(kept.lastError!.endsWith(" …")).toBe(true);
});

test("no record, no file and no directory are no record", async () => {
  expect(await readVmRecord(newDirectory())).toBe(undefined);
  expect(await readVmRecord(join(root, "not-there"))).toBe(undefined);
  const file = join(root, "file");
  writeFileSync(file, "");
  expect(await readVmRecord(file)).toBe(undefined);
  const directory = newDirectory();
  mkdirSync(join(directory, "vm.json"));
  expect(await readVmRecord(directory)).toBe(undefined);
});

test("a file too large, empty or half written is no record", async () => {
  const directory = newDirectory();
  for (const content of ["", "{", text.slice(0, 100), text.slice(0, -3), "null", "[]", "7", '"x"', `${" ".repeat(270_000)}${text}`]) {
    writeFileSync(join(directory, "vm.json"), content);
    expect(await readVmRecord(directory)).toBe(undefined);
  }
});

test("a file that can't be read now is not taken for none", async () => {
  const directory = newDirectory();
  symlinkSync("vm.json", join(directory, "vm.json")); // ELOOP, also for root
  await expect(readVmRecord(directory)).rejects.toMatchObject({ name: "PyroError", code: "DENIED" });
});

test("a newer pyro's record is neither read nor taken for garbage", async () => {
  const wanted = expect.objectContaining({ code: "UNSUPPORTED", message: "The VM's record is in format 2, of a newer pyro; this one knows 1.", hint: "Use that pyro, or update this one." });
  expect(() => parseVmRecord(text.replace('"schema_version": 1', '"schema_version": 2'))).toThrow(wanted);
  expect(() => parseVmRecord('{"schema_version": 2}')).toThrow(wanted);
  const directory = newDirectory();
  writeFileSync(join(directory, "vm.json"), '{"schema_version": 2, "anything": []}');
  await expect(readVmRecord(directory)).rejects.toMatchObject({ code: "UNSUPPORTED" });
  for (const version of [0, -1, 1.5, "2", null, true, [2]]) expect(parseVmRecord(text.replace('"schema_version": 1', `"schema_version": ${JSON.stringify(version)}`))).toBe(undefined);
});

test("each field has one kind of value; without a field that must be there, there is no record", () => {
  const whole = JSON.parse(text) as Record<string, unknown>;
  const optional = ["accelerator", "boot_ms", "environment_digest", "last_error"];
  for (const name of Object.keys(whole)) {
    for (const value of [undefined, null, {}, [], -1, 1e99, "", "x\u0000", "y".repeat(30_000)]) {
      const parsed = ((): VmRecord | undefined | "newer" => {
        try {
          return parseVmRecord(JSON.stringify({ ...whole, [name]: value }));
        } catch (error) {
          expect(error).toMatchObject({ code: "UNSUPPORTED" });
          return "newer";
        }
      })();
      if (name === "schema_version" && value === 1e99) continue;
      const harmless = optional.includes(name) || (["environment"].includes(name) && typeof value === "string" && value.length < 20_000);
      expect(parsed !== undefined, `${name}: ${String(JSON.stringify(value)).slice(0, 20)}`).toBe(harmless);
    }
  }
  for (const [name, value] of [["vcpu_count", 1.5], ["mem_mib", 127], ["ttl_seconds", 604_801], ["created_at", "2026-13-41T12:00:00.000Z"], ["expires_at", "2026-11-24T99:10:00.000Z"], ["expires_at_uptime_ms", 0.5], ["vm_id", "vm-../../x"], ["state", "running"], ["execution_mode", "host"]]) {
    expect(parseVmRecord(JSON.stringify({ ...whole, [name as string]: value })), String(name)).toBe(undefined);
  }
});

test("unknown fields are passed over: a version adds them without a new number", () => {
  expect(parseVmRecord(text.replace("{", '{ "anything_new": {"a": [1]},'))).toEqual(record);
});

// A seeded generator (mulberry32): what it finds can be found again.
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

test("bytes turned, cut, doubled and swapped give a record that fits or none", () => {
  const seed = 20_261_124;
  const next = random(seed);
  const pick = (below: number) => Math.floor(next() * below);
  for (let round = 0; round < 20_000; round++) {
    let bytes = Buffer.from(text);
    for (let change = pick(4); change >= 0; change--) {
      const at = pick(bytes.length);
      const kind = pick(4);
      if (kind === 0) bytes[at] = pick(256);
      else if (kind === 1) bytes = bytes.subarray(0, at);
      else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(pick(at + 1))]);
      else bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(["null", "{}", "-1e999", '"\\u0000"', "[[[["][pick(5)]!), bytes.subarray(at)]);
      if (bytes.length === 0) bytes = Buffer.from("x");
    }
    try {
      const parsed = parseVmRecord(bytes.toString("utf8"));
      if (parsed === undefined) continue;
      expect(parsed.vmId).toMatch(/^vm-[0-9a-z]{8}$/);
      expect(Number.isFinite(Date.parse(parsed.expiresAt))).toBe(true);
      expect(Number.isSafeInteger(parsed.expiresAtUptimeMs)).toBe(true);
    } catch (error) {
      expect(error, `seed ${seed}, round ${round}`).toMatchObject({ code: "UNSUPPORTED" });
    }
  }
});
