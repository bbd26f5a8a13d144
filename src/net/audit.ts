/** What the guest did on the network: one JSON line each, in two files of bounded length, and the counters and last refusals that `info` shows. */
import { closeSync, openSync, renameSync, statSync, writeSync } from "node:fs";
import { harmlessLine } from "../base/harmless.js";

export interface AuditRecord {
  /** RFC 3339. */
  time: string;
  type: "dns" | "connect" | "close" | "refused" | "secret" | "publish";
  protocol: "tcp" | "udp" | "icmp" | "dns" | "tls" | "http";
  name?: string;
  address?: string;
  port?: number;
  /** Of a DNS question: the type of record asked for. */
  query?: string;
  /** Which rule decided. */
  rule?: string;
  reason?: string;
  bytes_sent?: number;
  bytes_received?: number;
  /** The name of a secret that was put in. */
  secret?: string;
}

export interface Counters {
  connectionsOpen: number;
  connectionsTotal: number;
  refusedTotal: number;
  dnsQueries: number;
  bytesSent: number;
  bytesReceived: number;
}

const maxFileBytes = 4 * 1024 * 1024;
const maxLastRefusals = 32;
/** What of a text of the guest's is kept. */
const maxTextLength = 253;
/** Lines that wait to be written together, bytes; more are written at once. */
const maxWaitingBytes = 65_536;

export class Audit {
  readonly counters: Counters = { connectionsOpen: 0, connectionsTotal: 0, refusedTotal: 0, dnsQueries: 0, bytesSent: 0, bytesReceived: 0 };
  readonly #file: string | undefined;
  readonly #listener: (record: AuditRecord) => void;
  readonly #lastRefusals: AuditRecord[] = [];
  #descriptor: number | undefined;
  #fileBytes = 0;
  #waiting: string[] = [];
  #waitingBytes = 0;

  /** `file` is absolute; what is in its way after 4 MiB becomes `file.1`. `listener` gets each record. */
  constructor(file: string | undefined, listener: (record: AuditRecord) => void) {
    this.#file = file;
    this.#listener = listener;
    if (file !== undefined) this.#open(file);
  }

  get lastRefusals(): readonly AuditRecord[] {
    return this.#lastRefusals;
  }

  count(counter: keyof Counters, by = 1): void {
    this.counters[counter] += by;
  }

  /** Text in `record` may be the guest's. */
  write(facts: Omit<AuditRecord, "time">): void {
    const record: AuditRecord = { time: new Date().toISOString(), ...facts };
    for (const key of ["name", "reason", "query"] as const) {
      const text = record[key];
      if (text !== undefined) record[key] = harmlessLine(text, maxTextLength);
    }
    if (record.type === "refused") {
      this.counters.refusedTotal++;
      this.#lastRefusals.push(record);
      if (this.#lastRefusals.length > maxLastRefusals) this.#lastRefusals.shift();
    }
    this.#listener(record);
    if (this.#file === undefined) return;
    const line = `${JSON.stringify(record)}\n`;
    if (this.#waiting.push(line) === 1) setImmediate(() => this.flush());
    this.#waitingBytes += line.length;
    if (this.#waitingBytes > maxWaitingBytes) this.flush();
  }

  /** Writes what waits. A disk that is full costs the lines, not the network: the guest could have filled it. */
  flush(): void {
    if (this.#waiting.length === 0) return;
    const bytes = Buffer.from(this.#waiting.join(""));
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (this.#fileBytes + bytes.length > maxFileBytes) this.#rotate();
    if (this.#descriptor === undefined) return;
    try {
      this.#fileBytes += writeSync(this.#descriptor, bytes);
    } catch {
      // see above
    }
  }

  #rotate(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    try {
      renameSync(this.#file!, `${this.#file!}.1`);
    } catch {
      // it was removed: a new one is made
    }
    try {
      this.#open(this.#file!);
    } catch {
      this.#descriptor = undefined; // its directory is gone, as the VM will be
    }
  }

  #open(file: string): void {
    this.#descriptor = openSync(file, "a", 0o600);
    this.#fileBytes = statSync(file).size;
  }
}
