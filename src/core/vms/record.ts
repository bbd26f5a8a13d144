/** What is known of a VM that outlives a process: one JSON file, written as a whole, read with suspicion. */
import { join } from "node:path";
import { writeAtomic } from "../../base/atomic.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { toJson } from "../../base/json.js";
import { readRegular } from "../../base/regular-file.js";
import { limits } from "../limits.js";
import type { Network, PublishedPort } from "../network.js";
import { isVariables, parseNetwork, parsePorts } from "./record-network.js";
import { vmStates, type VmState } from "./lifecycle.js";

const schemaVersion = 1;
const maxRecordBytes = 256 << 10;
/** Of `last_error`: a message can carry a whole console, and the record is to stay readable. `pyro vm logs` has the rest. */
const maxErrorChars = 4000;
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
  /** While it is started: its ports on this host, those that were chosen here included; absent where there are none. */
  publishedPorts?: readonly PublishedPort[];
}

/** What the file holds besides. */
export interface VmRecord extends Vm {
  allowHostCompat: boolean;
  /** Of one with a network. */
  network?: Network;
  /** What commands are told of the network: `NAME=VALUE`. Once it was started. */
  variables?: readonly string[];
  /** Of the environment that it was first started from. */
  environmentDigest?: string;
  /** Why there is no VM, where its command will run on the host. */
  hostReason?: string;
  /** Until the guest was ready, milliseconds; once it was started. */
  bootMs?: number;
  /** The boot of the host in which this was written (`expiry.ts`), and its end there on the clock that nobody sets and that counts suspension, ms since that boot. */
  hostBootId: string;
  expiresAtUptimeMs: number;
}

/**
 * Undefined if there is none, or what no pyro wrote. Throws UNSUPPORTED for one of a newer pyro: its VM is not ours to judge or to clear away.
 * A file that can't be read now throws, too: it may say that the VM runs.
 */
export async function readVmRecord(directory: string): Promise<VmRecord | undefined> {
  let text: string;
  try {
    text = (await readRegular(join(directory, recordName), maxRecordBytes)).toString("utf8");
  } catch (error) {
    if (error instanceof PyroError || ["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined; // the first: no regular file, or too large
    throw toPyroError(error);
  }
  return parseVmRecord(text);
}

/** Throws DISK_FULL, DENIED; what was there before is there still. */
export async function writeVmRecord(directory: string, record: VmRecord): Promise<void> {
  const { lastError } = record;
  const kept = { ...record, ...(lastError !== undefined && lastError.length > maxErrorChars && { lastError: `${lastError.slice(0, maxErrorChars)} …` }), schemaVersion };
  try {
    await writeAtomic(join(directory, recordName), `${JSON.stringify(toJson(kept), undefined, 2)}\n`, 0o600);
  } catch (error) {
    throw toPyroError(error);
  }
}

/** Undefined for what no pyro wrote. Throws UNSUPPORTED. */
export function parseVmRecord(text: string): VmRecord | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof json !== "object" || json === null) return undefined;
  const of = json as Record<string, unknown>;
  const version = of["schema_version"];
  if (typeof version === "number" && Number.isInteger(version) && version > schemaVersion) {
    throw new PyroError("UNSUPPORTED", `The VM's record is in format ${version}, of a newer pyro; this one knows ${schemaVersion}.`, { hint: "Use that pyro, or update this one." });
  }
  const string = (name: string, pattern: RegExp) => (typeof of[name] === "string" && pattern.test(of[name]) ? of[name] : undefined);
  const number = (name: string, { min, max }: { min: number; max: number }) => (Number.isSafeInteger(of[name]) && (of[name] as number) >= min && (of[name] as number) <= max ? (of[name] as number) : undefined);
  const flag = (name: string) => (typeof of[name] === "boolean" ? of[name] : undefined);
  const any = /^[^]{0,20000}$/;
  const time = (name: string) => {
    const text = string(name, /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$/);
    return text === undefined || Number.isNaN(Date.parse(text)) ? undefined : text;
  };
  const record = {
    vmId: string("vm_id", vmIdPattern),
    environment: string("environment", any),
    state: vmStates.find((each) => each === of["state"]),
    vcpuCount: number("vcpu_count", limits.vcpuCount),
    memMib: number("mem_mib", limits.memMib),
    diskMib: number("disk_mib", limits.diskMib),
    ttlSeconds: number("ttl_seconds", limits.ttlSeconds),
    createdAt: time("created_at"),
    expiresAt: time("expires_at"),
    networkEnabled: flag("network_enabled"),
    executionMode: (["pending", "guest", "host_compat"] as const).find((each) => each === of["execution_mode"]),
    allowHostCompat: flag("allow_host_compat"),
    hostBootId: string("host_boot_id", /^[0-9a-f-]{1,64}$/),
    expiresAtUptimeMs: number("expires_at_uptime_ms", { min: 0, max: Number.MAX_SAFE_INTEGER }),
  };
  const network = of["network"] === undefined ? undefined : parseNetwork(of["network"]);
  if ((network !== undefined) !== (record.networkEnabled === true)) return undefined; // a network without its policy must not come to life
  if (version !== schemaVersion || Object.values(record).some((each) => each === undefined)) return undefined;
  const accelerator = (["kvm", "tcg"] as const).find((each) => each === of["accelerator"]);
  const lastError = string("last_error", any);
  const environmentDigest = string("environment_digest", /^sha256:[0-9a-f]{64}$/);
  const warning = string("warning", any);
  const hostReason = string("host_reason", any);
  const bootMs = number("boot_ms", { min: 0, max: 1e9 });
  const publishedPorts = parsePorts(of["published_ports"]);
  return {
    ...(record as VmRecord),
    ...(network !== undefined && { network }),
    ...(isVariables(of["variables"]) && { variables: of["variables"] }),
    ...(accelerator !== undefined && { accelerator }),
    ...(lastError !== undefined && { lastError }),
    ...(environmentDigest !== undefined && { environmentDigest }),
    ...(warning !== undefined && { warning }),
    ...(hostReason !== undefined && { hostReason }),
    ...(bootMs !== undefined && { bootMs }),
    ...(publishedPorts !== undefined && { publishedPorts }),
  };
}

/** What of a record is for everybody. */
export function publicVm({ allowHostCompat: _allow, network: _network, variables: _variables, environmentDigest: _digest, hostReason: _reason, bootMs: _boot, hostBootId: _id, expiresAtUptimeMs: _uptime, publishedPorts, ...vm }: VmRecord): Vm {
  // Another start may get others.
  return vm.state === "started" && publishedPorts !== undefined ? { ...vm, publishedPorts } : vm;
}

export const vmIdPattern = /^vm-[0-9a-z]{8}$/;
