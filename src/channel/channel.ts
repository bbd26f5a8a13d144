/** One connection to a guest: what can be asked of it. */
import { randomBytes } from "node:crypto";
import type { Duplex, Readable } from "node:stream";
import { PyroError } from "../base/error.js";
import { checkSignal, followFor } from "../base/deadline.js";
import { shakeHands, type ConnectOptions, type Hello } from "./connect.js";
import { answerOf } from "./answer.js";
import { change, makeDirectory, makeLink, remove, rename, type Change, type MakeDirectoryOptions, type RemoveOptions } from "./entries.js";
import { attachJob, forgetJobFields, jobsOf, killJobFields, startJob, type AttachedJob, type JobRecord, type JobRequest } from "./jobs.js";
import { statsFields, statsOf, statsResult, type GuestStats } from "./stats.js";
import { readLayer, type GuestLayer } from "./layer.js";
import { packTree, unpackTree, type PackOptions, type PackedTree, type UnpackOptions } from "./copy.js";
import { list, readFile, stat, writeFile, type GuestEntry, type GuestPath, type GuestStat, type ReadFileOptions, type WriteFileOptions } from "./files.js";
import { u16, u8, type Field, type Fields, type TagName } from "./message.js";
import { Mux } from "./mux.js";
import type { TreeEntry } from "./tree.js";
import { exec, type ExecRequest, type GuestProcess, type SignalScope } from "./process.js";

/** How long a guest may take to answer what needs no work, milliseconds. Long, as an emulated guest on a busy host is slow. */
const ANSWER_DEADLINE_MS = 30_000;

export interface Identity {
  /** 1 to 64 of `[a-z0-9-]`. */
  vmId: string;
  /** 1 to 63 of `[a-z0-9-]`. */
  hostname: string;
  /** 32 hexadecimal digits. */
  machineId: string;
  /** Of a guest whose card has a gateway. */
  network?: GuestNetwork;
}

/** What the guest's card is told. IPv4 addresses. */
export interface GuestNetwork {
  address: string;
  /** 8 to 30 bits. */
  prefix: number;
  gateway: string;
  nameServer: string;
  /** 576 to 65,535 bytes. */
  mtu: number;
}

export interface Channel {
  readonly hello: Hello;
  /** Settles once, never rejects: with the first cause of the end, or undefined where `close` was it. */
  readonly closed: Promise<PyroError | undefined>;
  /** Throws INVALID_ARGUMENT, INVALID_STATE, or what ended the channel; later errors are in the process's streams and result. */
  exec(request: ExecRequest): GuestProcess;
  readFile(path: GuestPath, options?: ReadFileOptions): Readable;
  writeFile(path: GuestPath, content: AsyncIterable<Uint8Array> | Uint8Array, options?: WriteFileOptions): Promise<void>;
  stat(path: GuestPath, options?: { follow?: boolean; signal?: AbortSignal }): Promise<GuestStat>;
  list(path: GuestPath, options?: { signal?: AbortSignal }): Promise<GuestEntry[]>;
  makeDirectory(path: GuestPath, options?: MakeDirectoryOptions): Promise<void>;
  remove(path: GuestPath, options?: RemoveOptions): Promise<void>;
  rename(from: GuestPath, to: GuestPath, options?: { exclusive?: boolean; signal?: AbortSignal }): Promise<void>;
  /** Mode, owner and time of what is there. */
  change(path: GuestPath, change: Change, options?: { signal?: AbortSignal }): Promise<void>;
  makeLink(path: GuestPath, target: GuestPath, options?: { hard?: boolean; signal?: AbortSignal }): Promise<void>;
  /** A tree of files out of the guest, as a stream of entries. Throws what the start of it throws. */
  packTree(path: GuestPath, options?: PackOptions): PackedTree;
  /** All that was changed over the root disk, as an image's layer. */
  readLayer(options?: { signal?: AbortSignal }): GuestLayer;
  /** A tree of files into the guest. */
  unpackTree(path: GuestPath, entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>, options?: UnpackOptions): Promise<{ entries: number }>;
  /** Starts a command that goes on when this channel ends. `name`: 1 to 64 of `[a-z0-9-]`. Resolves when it runs. */
  startJob(name: string, request: JobRequest, options?: { signal?: AbortSignal }): Promise<{ pid: number }>;
  listJobs(options?: { signal?: AbortSignal }): Promise<JobRecord[]>;
  attachJob(name: string): AttachedJob;
  /** Linux number; `all` takes 9 only, and also reaches what the command left behind when it ended. Rejects with NOT_FOUND, or INVALID_STATE where nothing is left. */
  killJob(name: string, signal: number, scope: SignalScope, options?: { signal?: AbortSignal }): Promise<void>;
  /** Of a job that has ended. Rejects with NOT_FOUND, or INVALID_STATE while it runs. */
  forgetJob(name: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** How the guest is, in its own words. */
  stats(options?: { signal?: AbortSignal }): Promise<GuestStats>;
  /**
   * Tells the guest who it is, what time it is and fresh randomness. The guest's clock as it was set, nanoseconds since 1970. With `until` it may take as long as that
   * does not abort: among hundreds of guests that start at once, seconds say nothing.
   */
  identify(identity: Identity, until?: AbortSignal): Promise<{ clockNs: bigint }>;
  /** Sets the guest's clock to the host's. `until` is as for `identify`. */
  setClock(until?: AbortSignal): Promise<{ clockNs: bigint }>;
  /** 32 to 4,096 bytes. */
  addEntropy(bytes: Uint8Array): Promise<void>;
  /** The guest's uptime, milliseconds. */
  ping(): Promise<number>;
  /** Resolves when the guest has agreed, or is gone. */
  powerOff(): Promise<void>;
  /** Everything under way ends with CANCELLED, and the guest ends what this channel began. */
  close(): void;
}

/** Takes over `transport`, a guest's port. Rejects with TIMEOUT, CANCELLED, GUEST_LOST or PROTOCOL; `transport` is destroyed then, as it is at the channel's end. */
export async function connectChannel(transport: Duplex, options: ConnectOptions = {}): Promise<Channel> {
  const { hello, mux } = await shakeHands(transport, options, (hello, rest) => ({ hello, mux: new Mux(transport, rest) }));
  const ask = (what: string, fields: readonly Field[], result: readonly TagName[] = [], signal?: AbortSignal) => {
    checkSignal(signal);
    const stream = mux.open(fields, { result });
    const late = () => new PyroError("TIMEOUT", `The guest did not ${what} within ${ANSWER_DEADLINE_MS / 1000} s.`, { hint: "It hangs or is overloaded; its console tells more." });
    const patience = followFor(signal, ANSWER_DEADLINE_MS, late);
    return answerOf(stream, what, patience.signal).finally(() => patience.abort());
  };
  const askUntil = (until: AbortSignal | undefined, what: string, fields: readonly Field[], result: readonly TagName[]) =>
    until === undefined ? ask(what, fields, result) : answerOf(mux.open(fields, { result }), what, until);
  return {
    hello,
    closed: mux.closed,
    exec: (request) => exec(mux, request),
    readFile: (path, readOptions) => readFile(mux, path, readOptions),
    writeFile: (path, content, writeOptions) => writeFile(mux, path, content, writeOptions),
    stat: (path, statOptions) => stat(mux, path, statOptions),
    list: (path, listOptions) => list(mux, path, listOptions),
    makeDirectory: (path, makeOptions) => makeDirectory(mux, path, makeOptions),
    remove: (path, removeOptions) => remove(mux, path, removeOptions),
    rename: (from, to, renameOptions) => rename(mux, from, to, renameOptions),
    change: (path, what, changeOptions) => change(mux, path, what, changeOptions),
    makeLink: (path, target, linkOptions) => makeLink(mux, path, target, linkOptions),
    packTree: (path, packOptions) => packTree(mux, path, packOptions),
    readLayer: (layerOptions) => readLayer(mux, layerOptions),
    unpackTree: (path, entries, unpackOptions) => unpackTree(mux, path, entries, unpackOptions),
    startJob: (name, request, jobOptions) => startJob(mux, name, request, jobOptions),
    listJobs: async ({ signal } = {}) => jobsOf(await ask("list its jobs", [["KIND", u8(18)]], ["JOB_LIST"], signal)),
    attachJob: (name) => attachJob(mux, name),
    killJob: async (name, number, scope, { signal } = {}) => void (await ask(`signal the job ${name}`, killJobFields(name, number, scope), [], signal)),
    forgetJob: async (name, { signal } = {}) => void (await ask(`forget the job ${name}`, forgetJobFields(name), [], signal)),
    stats: async ({ signal } = {}) => statsOf(await ask("tell how it is", statsFields, statsResult, signal)),
    identify: async (identity, until) => clockOf(await askUntil(until, "take its identity", identifyFields(identity), ["CLOCK"])),
    setClock: async (until) => clockOf(await askUntil(until, "set its clock", [["KIND", u8(7)], ["CLOCK", now()]], ["CLOCK"])),
    addEntropy: async (bytes) => void (await ask("take entropy", [["KIND", u8(8)], ["ENTROPY", bytes]])),
    ping: async () => Number((await ask("answer a ping", [["KIND", u8(9)]], ["DURATION"])).get("DURATION")!.readBigUInt64LE()) / 1e6,
    powerOff: async () => {
      try {
        await ask("power off", [["KIND", u8(10)]]);
      } catch (error) {
        // Gone before it could say so.
        if (!(error instanceof PyroError) || error.code !== "GUEST_LOST") throw error;
      }
    },
    close: () => mux.fail(undefined),
  };
}

function identifyFields({ vmId, hostname, machineId, network }: Identity): Field[] {
  return [
    ["KIND", u8(6)],
    ["VM_ID", Buffer.from(vmId)],
    ["HOSTNAME", Buffer.from(hostname)],
    ["MACHINE_ID", Buffer.from(machineId)],
    ["ENTROPY", randomBytes(64)],
    ...(network === undefined ? [] : [["NETWORK", networkField(network)] as const]),
    // Last, so that it is as late as it can be.
    ["CLOCK", now()],
  ];
}

function networkField({ address, prefix, gateway, nameServer, mtu }: GuestNetwork): Buffer {
  return Buffer.concat([...[address, gateway, nameServer].map((each) => Buffer.from(each.split(".").map(Number))), u8(prefix), u16(mtu)]);
}

function now(): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigInt64LE(BigInt(Date.now()) * 1_000_000n);
  return bytes;
}

function clockOf(fields: Fields): { clockNs: bigint } {
  return { clockNs: fields.get("CLOCK")!.readBigInt64LE() };
}
