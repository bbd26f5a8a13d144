/**
 * VMs that others than their maker use: each has a directory (`VmSpec.place`) in which its keeper serves the guest's ports and a socket
 * of its own, keeps the console's log, and says in the end how it ended (`keeper/place.h`).
 */
import { constants, existsSync, readFileSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { syncFile } from "../base/atomic.js";
import { sleep, withDeadline } from "../base/deadline.js";
import { PyroError, systemCode } from "../base/error.js";
import { readRegular } from "../base/regular-file.js";
import { harmless, maxConsoleBytes } from "./console.js";
import { parseCpuMs, parseStartMs } from "./process-time.js";
import type { VmExit } from "./vmm.js";

export const placeNames = {
  control: "control",
  port: (number: number) => `port.${number}`,
  console: "console.log",
  stderr: "vmm.log",
  /** Of the gateway: its socket, and what it wrote to standard error. */
  net: "net",
  netLog: "net.log",
  exit: "exit",
  /** The top layer of the scratch disk: what the guest wrote. */
  scratch: "scratch",
  /** The layer below it, where the VM was forked: what its template wrote. */
  frozen: "frozen",
} as const;

/** Ports that every machine has; as many processes can talk to a VM with a place at once. */
export const portCount = 8;

/** How a VM with a place ended, in its keeper's words. */
export interface PlaceExit {
  /** `ttl` its time to live; `asked` somebody ended it; `owner` whoever owned it went away; `maker` its maker did before it was ready; `signal` its keeper was told to end; `program` it ended by itself. */
  cause: "ttl" | "asked" | "owner" | "maker" | "signal" | "program";
  /** Of the monitor, as a shell has it. */
  status: number;
}

/** A VM that runs and that was found by its place. */
export interface FoundVm {
  /** A new connection to port `number`. It may have to wait, at most until `signal`, until another process is done with that port. Throws GUEST_LOST, CANCELLED. */
  openPort(number: number, signal: AbortSignal): Promise<Socket>;
  /** A new connection to its gateway. Throws NOT_FOUND where there is none, or it is gone. */
  openGateway(): Promise<Socket>;
  /** Resolves when all of its processes are gone. */
  readonly exited: Promise<VmExit>;
  /** The end of the guest's console, control characters made harmless. */
  console(): string;
  /** From now on it ends when this connection does, however that happens. False if somebody else owns it so, or if it is gone. Throws TIMEOUT. */
  own(): Promise<boolean>;
  /** Kills it; resolves when all of its processes are gone. Throws TIMEOUT where its keeper can't do so. */
  end(): Promise<void>;
  /** What its monitor uses of the host; undefined once it is gone. Throws TIMEOUT. */
  usage(): Promise<VmUsage | undefined>;
  /** Lets go of it: it lives on, unless we own it. */
  release(): void;
}

export interface VmUsage {
  /** Since its monitor was started, milliseconds, time spent suspended included. */
  uptimeMs: number;
  /** Processor time since its start, milliseconds. */
  cpuMs: number;
  /** Memory that is its alone and its share of what it has in common with others (proportional set size), bytes. */
  memoryBytes: number;
  /** Blocks of the host's disk that its scratch disk takes up, bytes. */
  diskBytes: number;
}

/** A keeper answers at once; one that does not is stopped. */
const answerMs = 30_000;
/** Longer than a keeper tries for (`DESCENDANTS_SECONDS`). */
const endMs = 40_000;
/** How long the removal of a VM's files may take. */
const removalMs = 500;
/** Between two tries of a connection whose queue is full, and two looks at a place that may be being removed. */
const queueLookMs = 20;

/** Undefined if no VM runs there. Throws DENIED where it may not be looked at, TIMEOUT. */
export async function findVm(place: string): Promise<FoundVm | undefined> {
  const connecting = new AbortController();
  const control = await patiently(place, connectIn(place, placeNames.control, connecting.signal), answerMs, "answer").catch((error: unknown) => {
    connecting.abort();
    if (isGone(error)) return undefined;
    throw error;
  });
  if (control === undefined) return undefined;
  const replies = new Replies(control);
  let exited: Promise<VmExit> | undefined;
  const untilExited = async (): Promise<VmExit> => {
    await replies.closed;
    const exit = await readExit(place);
    // Whoever deletes a VM may be faster than we are at reading how it ended, and still be at it.
    for (let waitedMs = 0; exit === undefined && existsSync(place) && waitedMs < removalMs; waitedMs += queueLookMs) await sleep(queueLookMs);
    return { reason: exit === undefined && !existsSync(place) ? "killed" : reasonOf(exit), code: exit?.status ?? null, signal: null, stderr: logTail(place, placeNames.stderr) };
  };
  return {
    openPort: (number, signal) => connectIn(place, placeNames.port(number), signal).catch((error: unknown) => {
      if (isGone(error)) throw new PyroError("GUEST_LOST", `The VM in ${place} ended.`, { cause: error });
      throw error;
    }),
    openGateway: () => connectIn(place, placeNames.net).catch((error: unknown) => {
      throw new PyroError("NOT_FOUND", `The VM in ${place} has no network gateway.`, { cause: error, hint: "It was started without a network, or its gateway ended; stopped and started again it has another one." });
    }),
    get exited() {
      // Not before somebody asks: most who find a VM look at it and let go of it.
      if (exited === undefined) (exited = untilExited()).catch(() => {});
      return exited;
    },
    console: () => logTail(place, placeNames.console),
    own: async () => (await patiently(place, replies.ask("o", (text) => (text === "" ? undefined : text[0])), answerMs, "answer")) === "y",
    end: async () => {
      control.write("e");
      await patiently(place, replies.closed, endMs, "end it");
    },
    usage: async () => {
      const pid = await patiently(place, replies.ask("p", (text) => /^([0-9]{1,10})\n/.exec(text)?.[1]), answerMs, "answer");
      return pid === undefined ? undefined : usageOf(pid, place);
    },
    release: () => {
      control.unref();
      control.end();
    },
  };
}

async function patiently<T>(place: string, work: Promise<T>, ms: number, what: string): Promise<T> {
  return withDeadline(work, ms, `That the keeper of the VM in ${place} would ${what}`).catch((error: unknown) => {
    if (!(error instanceof PyroError) || error.code !== "TIMEOUT") throw error;
    throw new PyroError("TIMEOUT", error.message, { hint: `Its process was stopped, or the kernel holds on to one of the VM's. \`pgrep -f 'pyro-keeper keep .*${place}'\` finds it; killed, it takes the VM with it.`, cause: error });
  });
}

/** How the VM that ran there ended; undefined while it runs, and if its keeper could not say. Throws where that can't be found out. */
export async function readExit(place: string): Promise<PlaceExit | undefined> {
  try {
    const [, cause, status] = /^(ttl|asked|owner|maker|signal|program) ([0-9]{1,3})\n$/.exec((await readRegular(join(place, placeNames.exit), 64)).toString("latin1")) ?? [];
    return cause === undefined ? undefined : { cause: cause as PlaceExit["cause"], status: Number(status) };
  } catch (error) {
    // What is no file of a keeper's says as little as none. Too few descriptors, say, are another matter: this VM may well have said how it ended.
    if (error instanceof PyroError || ["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return undefined;
    throw error;
  }
}

/** Makes durable what a VM that has ended wrote to its disk, and what its template did. While it ran, nothing was: most VMs are thrown away. */
export async function syncDisk(place: string): Promise<void> {
  for (const name of [placeNames.scratch, placeNames.frozen]) {
    await syncFile(join(place, name)).catch((error: unknown) => {
      if (systemCode(error) !== "ENOENT") throw error;
    });
  }
}

/** The end of a log of a VM with a place: both files of it, at most `maxConsoleBytes`; harmless for a terminal. */
export function logTail(place: string, name: string = placeNames.console, lines = 40): string {
  // Written by the keeper alone, within limits.
  const parts = [`${name}.1`, name].map((each) => {
    try {
      return readFileSync(join(place, each));
    } catch {
      return Buffer.alloc(0);
    }
  });
  return harmless(Buffer.concat(parts).subarray(-maxConsoleBytes)).split("\n").slice(-lines - 1).join("\n").trim();
}

export function reasonOf(exit: PlaceExit | undefined): VmExit["reason"] {
  if (exit === undefined) return "failed";
  if (exit.cause === "ttl") return "ttl";
  if (exit.cause !== "program") return "killed";
  return exit.status === 0 ? "guest" : "failed";
}

/** Of a socket. ECONNREFUSED: its keeper was killed; ECONNRESET: it just ends. */
function isGone(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(systemCode(error) ?? "");
}

/** Connects to a socket by its directory's descriptor: its path may be longer than a socket's address. Waits for room in a full queue, until `signal`. */
export async function connectIn(directory: string, name: string, signal?: AbortSignal): Promise<Socket> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const path = `/proc/self/fd/${handle.fd}/${name}`;
    for (;;) {
      try {
        return await connected(path);
      } catch (error) {
        // Its queue is full of others that wait.
        if (systemCode(error) !== "EAGAIN") throw error;
        await sleep(queueLookMs, signal);
      }
    }
  } finally {
    await handle.close();
  }
}

async function connected(path: string): Promise<Socket> {
  const socket = connect({ path });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  socket.on("error", () => {}); // `close` follows
  return socket;
}

/** Short answers, one after another. */
class Replies {
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  #text = "";
  #turn: Promise<unknown> = Promise.resolve();
  #onText = () => {};
  #isClosed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#text += chunk.toString("latin1");
      if (this.#text.length > 256) socket.destroy(); // no keeper of ours
      this.#onText();
    });
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#isClosed = true;
        this.#onText();
        resolve();
      });
    });
  }

  /** What `parse` makes of the answer once it is whole; undefined if the connection ends before. */
  ask<T>(question: string, parse: (text: string) => T | undefined): Promise<T | undefined> {
    const answer = this.#turn.then(
      () =>
        new Promise<T | undefined>((resolve) => {
          this.#text = "";
          this.#onText = () => {
            const parsed = parse(this.#text);
            if (parsed === undefined && !this.#isClosed) return;
            this.#onText = () => {};
            resolve(parsed);
          };
          if (this.#isClosed) return resolve(undefined);
          this.#socket.write(question);
        }),
    );
    this.#turn = answer.catch(() => {});
    return answer;
  }
}

async function usageOf(pid: string, place: string): Promise<VmUsage | undefined> {
  try {
    const [stat, uptime, rollup, layers] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "latin1"),
      readFile("/proc/uptime", "latin1"),
      readFile(`/proc/${pid}/smaps_rollup`, "latin1"),
      Promise.all([placeNames.scratch, placeNames.frozen].map((name) => blocksOf(join(place, name)))),
    ]);
    const memoryKib = Number(/^Pss:\s+([0-9]+) kB/m.exec(rollup)?.[1]);
    if (!Number.isFinite(memoryKib)) throw new PyroError("INTERNAL", "/proc does not tell how much memory a process has.");
    return { uptimeMs: Math.max(0, Math.round(parseFloat(uptime) * 1000) - parseStartMs(stat)), cpuMs: parseCpuMs(stat), memoryBytes: memoryKib * 1024, diskBytes: layers.reduce((sum, each) => sum + each, 0) };
  } catch (error) {
    if (error instanceof PyroError) throw error;
    return undefined;
  }
}

async function blocksOf(path: string): Promise<number> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      return (await file.stat()).blocks * 512;
    } finally {
      await file.close();
    }
  } catch {
    return 0;
  }
}
