/**
 * The one home of child processes. Every child gets a bare environment (`childEnvironment`) and no shell. Children that must
 * not outlive us go through the keeper (`keeper/keeper.c`), which ends them and all their descendants when our end of a pipe
 * closes, for whatever reason it closes: a SIGKILL of this process included.
 */
import { spawn, type ChildProcess, type StdioOptions } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { PyroError, systemCode, toPyroError } from "./error.js";
import { childEnvironment } from "./settings.js";
import { nativeProgram } from "./paths.js";
import { cancelled, whenAborted } from "./deadline.js";

export interface ChildExit {
  /** Exit status; null if a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** What a child's descriptors are from 0 upwards: `pipe` gives a Duplex in `stdio`, a number or a socket hands on that descriptor. */
export type ChildStdio = readonly ("ignore" | "pipe" | number | Duplex)[];

export interface KeepOptions {
  stdio: ChildStdio;
  /** Added to the bare environment. */
  env?: Record<string, string>;
  /** All of the environment, instead of the bare one. */
  environment?: Record<string, string>;
  cwd?: string;
  /** Time to live, seconds: the keeper ends the child then, whether or not we live. */
  ttlSeconds?: number;
  /** Between SIGTERM and SIGKILL, milliseconds; 0 sends SIGKILL at once. */
  graceMs?: number;
  /** Files on which the keeper holds a shared lock for as long as the child lives. */
  lockShared?: readonly string[];
  place?: KeeperPlace;
  beside?: BesideProgram;
  /** It has nothing but its descriptors and this, as far as the host lets us take the rest away (`keeper/confine.h`). */
  confine?: Confinement;
  /** What its control group (cgroup v2) has in which file, where one can be made for it; elsewhere it runs without. */
  limits?: Readonly<Record<string, string>>;
}

/** A second program that runs beside a kept child and ends with it (`keeper/beside.h`). It has no descriptors but those named here; standard input, output and error are /dev/null where nothing else is. */
export interface BesideProgram {
  command: string;
  args: readonly string[];
  /** A connected pair of sockets: the child's descriptor (`ignore` in `stdio`), and the program's. */
  cable: readonly [fd: number, programFd: number];
  /** What is in `stdio` for the program alone, and its descriptor of it. */
  give: readonly (readonly [fd: number, programFd: number])[];
  /** As of a place, by the program's descriptors. */
  listen?: KeeperPlace["listen"];
  log?: KeeperPlace["log"];
}

/** Files that a confined child may open by name, whatever it could reach itself; absolute paths, each at most 4. */
export interface Confinement {
  read?: readonly string[];
  write?: readonly string[];
  /** A descriptor of its `stdio` that it may open once more by `/proc/self/fd/N`, for writing too, and gets in the mode in which it is open already. */
  reopen?: number;
  /** Instead, of memory that others have too: no holes are made into its file, though the child believes it. Where that can't be had the child ends with status 125. */
  seal?: number;
}

/** Where other processes find a kept child (`keeper/place.h`), so that it can go on without us. */
export interface KeeperPlace {
  /** An absolute path; the directory is there. */
  directory: string;
  /** Sockets in it that the child serves: the child's descriptor of each (`ignore` in `stdio`), and its name. */
  listen: readonly (readonly [fd: number, name: string])[];
  /** Logs in it, each kept within 128 KiB, of what the child writes to a descriptor (`ignore` in `stdio`). */
  log: readonly (readonly [fd: number, name: string])[];
}

/** A process started by `keepChild`. */
export interface KeptChild {
  /** The keeper's process id. */
  pid: number;
  /** Our ends of the descriptors that were asked for as `pipe`, by descriptor number. */
  stdio: readonly (Duplex | undefined)[];
  exited: Promise<ChildExit>;
  /** Ends the child and its descendants: SIGTERM, the grace, SIGKILL. Resolves when all are gone. Safe to call again. */
  end(): Promise<ChildExit>;
  /** For a child with a place: it lives on when we end, and we can end before it does. `end` does nothing any more. */
  release(): void;
}

/** The keeper's exit status when the time to live ended the child. */
export const keeperTtlStatus = 124;

/**
 * Starts `command` under the keeper. The child's descriptors are `stdio`; the keeper's lifeline to us is one more pipe behind
 * them. Throws HOST_MISSING when there is no such command.
 */
export async function keepChild(command: string, args: readonly string[], options: KeepOptions): Promise<KeptChild> {
  const { beside } = options;
  const [program, besideProgram] = await Promise.all([findProgram(command), beside && findProgram(beside.command)]);
  const lifeline = options.stdio.length;
  const keeperArgs = ["keep", "--lifeline", String(lifeline), "--grace-ms", String(options.graceMs ?? 0)];
  if (options.ttlSeconds !== undefined) keeperArgs.push("--ttl-seconds", String(options.ttlSeconds));
  for (const file of options.lockShared ?? []) keeperArgs.push("--lock-shared", file);
  if (options.place !== undefined) {
    keeperArgs.push("--place", options.place.directory);
    for (const [fd, name] of options.place.listen) keeperArgs.push("--listen", `${fd}=${name}`);
    for (const [fd, name] of options.place.log) keeperArgs.push("--log", `${fd}=${name}`);
  }
  for (const [file, value] of Object.entries(options.limits ?? {})) keeperArgs.push("--limit", `${file}=${value}`);
  if (options.confine !== undefined) keeperArgs.push(...confineWords(options.confine));
  const besideWords = beside === undefined ? [] : [besideProgram!, ...beside.args];
  if (beside !== undefined) {
    keeperArgs.push("--beside", String(besideWords.length), "--cable", beside.cable.join("="));
    for (const pair of beside.give) keeperArgs.push("--give", pair.join("="));
    for (const [fd, name] of beside.listen ?? []) keeperArgs.push("--listen-beside", `${fd}=${name}`);
    for (const [fd, name] of beside.log ?? []) keeperArgs.push("--log-beside", `${fd}=${name}`);
  }
  const child = spawn(nativeProgram("pyro-keeper"), [...keeperArgs, "--", ...besideWords, program, ...args], {
    stdio: [...options.stdio, "pipe"] as StdioOptions,
    env: options.environment ?? childEnvironment(options.env),
    detached: true,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const exited = exitOf(child, command);
  await started(child, command);
  const stdio = (child.stdio as (Duplex | null)[]).map((stream) => stream ?? undefined);
  const lifelineStream = stdio[lifeline]!;
  for (const stream of stdio) stream?.on("error", () => {}); // a reset when the other side dies; the exit says all
  return {
    pid: child.pid!,
    stdio: stdio.slice(0, lifeline),
    exited,
    end() {
      lifelineStream.destroy();
      return exited;
    },
    release() {
      lifelineStream.end("r", () => lifelineStream.destroy()); // the keeper holds its end until its own
      child.unref();
    },
  };
}

function confineWords({ read = [], write = [], reopen, seal }: Confinement): string[] {
  const words = ["on", ...read.map((file) => `read=${file}`), ...write.map((file) => `write=${file}`), ...(reopen === undefined ? [] : [`reopen=${reopen}`]), ...(seal === undefined ? [] : [`seal=${seal}`])];
  return words.flatMap((each) => ["--confine", each]);
}

export interface RunOptions {
  signal?: AbortSignal;
  env?: Record<string, string>;
  cwd?: string;
  /** Standard input; none when left out. */
  input?: string | Uint8Array;
  /** Most bytes of standard output that are taken before the child is ended with PROTOCOL. Default 16 MiB. */
  maxOutputBytes?: number;
  /** Milliseconds. Default 60,000. */
  timeoutMs?: number;
}

export interface RunOutput extends ChildExit {
  stdout: Buffer;
  /** The last 8 KiB of standard error. */
  stderr: string;
}

/** Runs `command` to its end and takes its output. Does not throw for a non-zero exit: the caller knows what that means. */
export async function runChild(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunOutput> {
  const maxOutputBytes = options.maxOutputBytes ?? 16 << 20;
  const timeoutMs = options.timeoutMs ?? 60_000;
  // Under the keeper, so that what the child itself started can't hold its output open when we end it.
  const child = await keepChild(command, args, {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(options.env !== undefined && { env: options.env }),
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
  let failure: PyroError | undefined;
  const fail = (error: PyroError) => {
    failure ??= error;
    void child.end();
  };
  const timer = setTimeout(() => fail(new PyroError("TIMEOUT", `${command} did not end within ${timeoutMs / 1000} s.`)), timeoutMs);
  const onAbort = () => fail(cancelled(options.signal));
  const forget = whenAborted(options.signal, onAbort);
  if (options.signal?.aborted) onAbort();
  const chunks: Buffer[] = [];
  let total = 0;
  child.stdio[1]!.on("data", (chunk: Buffer) => {
    total += chunk.length;
    if (total > maxOutputBytes) fail(new PyroError("PROTOCOL", `${command} wrote more than ${maxOutputBytes} bytes.`));
    else chunks.push(chunk);
  });
  const stderr = keepTail(child.stdio[2]!, 8192);
  if (options.input !== undefined) child.stdio[0]!.end(options.input);
  try {
    const exit = await child.exited;
    if (failure !== undefined) throw failure;
    return { ...exit, stdout: Buffer.concat(chunks), stderr: stderr() };
  } finally {
    clearTimeout(timer);
    forget();
  }
}

/** Reads a stream to its end and keeps its last `bytes` bytes, as text. */
export function keepTail(stream: Readable, bytes: number): () => string {
  let tail = Buffer.alloc(0);
  stream.on("data", (chunk: Buffer) => {
    tail = Buffer.concat([tail, chunk]).subarray(-bytes);
  });
  return () => tail.toString("utf8");
}

/** The absolute path of a program named by path or looked up in PATH (with /usr/sbin and /sbin). Throws HOST_MISSING. */
export async function findProgram(command: string): Promise<string> {
  const candidates = command.includes("/") ? [command] : childEnvironment()["PATH"]!.split(":").filter((each) => each.startsWith("/")).map((each) => join(each, command));
  for (const candidate of candidates) {
    try {
      accessSync(candidate, constants.X_OK); // every VM's start waits for it, directory by directory
      return candidate;
    } catch {
      // not this one
    }
  }
  throw missingProgram(command);
}

/** Which Debian package brings a program, for the hint when it is missing. */
const packageOf: Record<string, string> = {
  "qemu-system-x86_64": "qemu-system-x86",
  mmdebstrap: "mmdebstrap",
  newuidmap: "uidmap",
  lz4: "lz4",
  "dpkg-deb": "dpkg",
  "apt-get": "apt",
  "apt-cache": "apt",
  "apt-config": "apt",
  unshare: "util-linux",
  mke2fs: "e2fsprogs",
  bwrap: "bubblewrap",
  xz: "xz-utils",
};

/** The error for a program that is not installed, with the command that installs it. */
function missingProgram(command: string, cause?: unknown): PyroError {
  const name = packageOf[command.replace(/^.*\//, "")];
  return new PyroError("HOST_MISSING", `${command} is not installed.`, {
    hint: name === undefined ? `Install ${command}.` : `sudo apt-get install -y ${name}`,
    cause,
  });
}

function started(child: ChildProcess, command: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(spawnError(command, error)));
  });
}

function exitOf(child: ChildProcess, command: string): Promise<ChildExit> {
  const exited = new Promise<ChildExit>((resolve, reject) => {
    // `close` and not `exit`: by then everything the child wrote has been read.
    child.once("close", (code, signal) => resolve({ code, signal }));
    child.once("error", (error) => reject(spawnError(command, error)));
  });
  exited.catch(() => {}); // whoever waits for it gets it; nobody has to
  return exited;
}

function spawnError(command: string, error: Error): PyroError {
  if (systemCode(error) === "ENOENT") return missingProgram(command, error);
  const message = `${command} could not be started: ${error.message}`;
  // The only thing that there can be too little of where nothing but a process is made.
  if (systemCode(error) === "EAGAIN") return new PyroError("HOST_MISSING", message, { cause: error, hint: "Hold fewer VMs at a time, or raise the limit of processes: `ulimit -u`, TasksMax= of a systemd unit, --pids-limit of a container." });
  const { code, hint } = toPyroError(error);
  if (code === "HOST_MISSING") return new PyroError(code, message, { cause: error, hint: hint! });
  return new PyroError("INTERNAL", message, { cause: error });
}
