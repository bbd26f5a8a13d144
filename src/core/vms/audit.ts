/** What a VM did on the network, as its gateway wrote it down. */
import { join } from "node:path";
import { checkSignal } from "../../base/deadline.js";
import { PyroError, systemCode, toPyroError } from "../../base/error.js";
import { readRegular } from "../../base/regular-file.js";
import type { AuditRecord as WrittenRecord } from "../../net/index.js";
import { knowVm } from "./store.js";

/** Something that a guest asked of its network, and what became of it. */
export interface AuditRecord {
  /** RFC 3339. */
  time: string;
  type: WrittenRecord["type"];
  protocol: WrittenRecord["protocol"];
  name?: string;
  address?: string;
  port?: number;
  /** Of a DNS question: the type of record asked for. */
  query?: string;
  /** Which rule decided. */
  rule?: string;
  reason?: string;
  bytesSent?: number;
  bytesReceived?: number;
  /** The name of a secret that was put in. */
  secret?: string;
}

/** What the gateway keeps of it, a file and the one before it; each is a little over 4 MiB at most. */
const maxFileBytes = 6 << 20;

export function auditFileIn(directory: string): string {
  return join(directory, "audit.jsonl");
}

/** Oldest first; at most what two files of 4 MiB hold. Throws NOT_FOUND, INVALID_STATE for a VM without a network, CANCELLED. */
export async function auditVm(vmId: string, options: { signal?: AbortSignal; last?: number } = {}): Promise<AuditRecord[]> {
  checkSignal(options.signal);
  const { directory, record, found } = await knowVm(vmId);
  found?.release();
  if (!record.networkEnabled) throw new PyroError("INVALID_STATE", `The VM ${vmId} has no network, so there is nothing on record of it.`, { hint: "A VM gets its network when it is created." });
  const file = auditFileIn(directory);
  const texts = await Promise.all([`${file}.1`, file].map(textOf));
  const records = texts.join("").split("\n").flatMap(parseLine);
  return options.last === undefined ? records : records.slice(-options.last);
}

async function textOf(file: string): Promise<string> {
  try {
    return (await readRegular(file, maxFileBytes)).toString("utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return "";
    throw toPyroError(error);
  }
}

/** A last line may be half written. */
function parseLine(line: string): AuditRecord[] {
  try {
    return line === "" ? [] : [auditRecord(JSON.parse(line) as WrittenRecord)];
  } catch {
    return [];
  }
}

/** In the spelling of SDK and core. */
export function auditRecord({ time, type, protocol, name, address, port, query, rule, reason, bytes_sent: bytesSent, bytes_received: bytesReceived, secret }: WrittenRecord): AuditRecord {
  const rest = { name, address, port, query, rule, reason, bytesSent, bytesReceived, secret };
  return { time, type, protocol, ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) };
}
