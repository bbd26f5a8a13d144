/** What is known of a VM that outlives a process: one JSON file, written as a whole, read with suspicion. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomic } from "../../base/atomic.js";
import { systemCode } from "../../base/error.js";
import { toJson } from "../../base/json.js";
import { readRegular } from "../../base/regular-file.js";
import { limits } from "../limits.js";
import { vmStates, type VmState } from "./lifecycle.js";

const schemaVersion = 1;
const maxRecordBytes = 64 << 10;
const recordName = "vm.json";

/** A VM as every face shows it. Times are RFC 3339. */
export interface Vm {
  vmId: string;
  environment: string;
  state: VmState;
  vcpuCount: number;
  memMib: number;
  diskMib: number;
  /** From its creation on, whatever happens. */
  ttlSeconds: number;
  createdAt: string;
  expiresAt: string;
  networkEnabled: boolean;
  /** `pending` until it is started. */
  executionMode: "pending" | "guest" | "host_compat";
  /** Once it was started as a guest. */
  accelerator?: "kvm" | "tcg";
  /** Once it failed. */
  lastError?: string;
  /** Where its command will run on the host: what is not isolated, and why. */
  warning?: string;
}

/** What the file holds besides. */
export interface VmRecord extends Vm {
  allowHostCompat: boolean;
  /** Of the environment that it was first started from. */
  environmentDigest?: string;
  /** Why there is no VM, where its command will run on the host. */
  hostReason?: string;
  /** Until the guest was ready, milliseconds; once it was started. */
  bootMs?: number;
  /** The boot of the host in which it was created, and its end there on the clock that nobody sets and that counts suspension, ms since that boot. */
  hostBootId: string;
  expiresAtUptimeMs: number;
}

/** Undefined if there is none, or one that no pyro of this version wrote. */
export async function readVmRecord(directory: string): Promise<VmRecord | undefined> {
  try {
    return parseVmRecord((await readRegular(join(directory, recordName), maxRecordBytes)).toString("utf8"));
  } catch (error) {
    if (systemCode(error) === "EACCES") throw error;
    return undefined;
  }
}

export async function writeVmRecord(directory: string, record: VmRecord): Promise<void> {
  await writeAtomic(join(directory, recordName), `${JSON.stringify(toJson({ ...record, schemaVersion }), undefined, 2)}\n`, 0o600);
}

export function parseVmRecord(text: string): VmRecord | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof json !== "object" || json === null) return undefined;
  const of = json as Record<string, unknown>;
  const string = (name: string, pattern: RegExp) => (typeof of[name] === "string" && pattern.test(of[name]) ? of[name] : undefined);
  const number = (name: string, { min, max }: { min: number; max: number }) => (typeof of[name] === "number" && of[name] >= min && of[name] <= max ? of[name] : undefined);
  const flag = (name: string) => (typeof of[name] === "boolean" ? of[name] : undefined);
  const any = /^[^]{0,20000}$/;
  const time = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}Z$/;
  const record = {
    vmId: string("vm_id", vmIdPattern),
    environment: string("environment", any),
    state: vmStates.find((each) => each === of["state"]),
    vcpuCount: number("vcpu_count", limits.vcpuCount),
    memMib: number("mem_mib", limits.memMib),
    diskMib: number("disk_mib", limits.diskMib),
    ttlSeconds: number("ttl_seconds", limits.ttlSeconds),
    createdAt: string("created_at", time),
    expiresAt: string("expires_at", time),
    networkEnabled: flag("network_enabled"),
    executionMode: (["pending", "guest", "host_compat"] as const).find((each) => each === of["execution_mode"]),
    allowHostCompat: flag("allow_host_compat"),
    hostBootId: string("host_boot_id", /^[0-9a-f-]{1,64}$/),
    expiresAtUptimeMs: number("expires_at_uptime_ms", { min: 0, max: Number.MAX_SAFE_INTEGER }),
  };
  if (of["schema_version"] !== schemaVersion || Object.values(record).some((each) => each === undefined)) return undefined;
  const accelerator = (["kvm", "tcg"] as const).find((each) => each === of["accelerator"]);
  const lastError = string("last_error", any);
  const environmentDigest = string("environment_digest", /^sha256:[0-9a-f]{64}$/);
  const warning = string("warning", any);
  const hostReason = string("host_reason", any);
  const bootMs = number("boot_ms", { min: 0, max: 1e9 });
  return {
    ...(record as VmRecord),
    ...(accelerator !== undefined && { accelerator }),
    ...(lastError !== undefined && { lastError }),
    ...(environmentDigest !== undefined && { environmentDigest }),
    ...(warning !== undefined && { warning }),
    ...(hostReason !== undefined && { hostReason }),
    ...(bootMs !== undefined && { bootMs }),
  };
}

/** What of a record is for everybody. */
export function publicVm({ allowHostCompat: _allow, environmentDigest: _digest, hostReason: _reason, bootMs: _boot, hostBootId: _id, expiresAtUptimeMs: _uptime, ...vm }: VmRecord): Vm {
  return vm;
}

export const vmIdPattern = /^vm-[0-9a-z]{8}$/;

/** Milliseconds since the host's boot, time spent suspended included (proc(5), /proc/uptime). */
export async function hostUptimeMs(): Promise<number> {
  return Math.round(Number((await readFile("/proc/uptime", "latin1")).split(" ")[0]) * 1000);
}
