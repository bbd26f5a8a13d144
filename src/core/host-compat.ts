/**
 * A command on the host, where its caller allowed that and no VM can be had. It is no VM and isolates little or nothing, so whoever asked
 * is told so each time; in all else it behaves as one in a guest.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { attendChild, type AttendedEnd } from "../base/attended.js";
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { makePipes, type Pipes } from "../base/pipes.js";
import { childEnvironment } from "../base/settings.js";
import type { ExecOutcome, ExecRequest } from "../channel/index.js";
import { makeTemporary } from "../environments/index.js";
import type { RunningCommand, Runner } from "./exec.js";
import { findSandbox, sandboxHome, type Sandbox } from "./host-sandbox.js";

export interface HostRequest {
  vmId: string;
  ttlSeconds: number;
  network: boolean;
  /** Why there is no VM: the error's sentence. */
  reason: string;
  /** A directory in which other processes find what runs, and can end it. */
  place?: string;
}

/** The host, ready for one command. Whoever gets it ends it. */
export interface Host extends Runner {
  executionMode: "host_compat";
  warning: string;
  /** Resolves when the command runs and is found in its place, or when it can't be run. */
  begun: Promise<void>;
  /** Kills the command with all its descendants, and removes all that is left of it. */
  end(): Promise<void>;
}

/** Throws HOST_MISSING, DENIED, DISK_FULL. */
export async function openHost(request: HostRequest): Promise<Host> {
  const begin = performance.now();
  const temporary = await makeTemporary();
  let pipes: Pipes | undefined;
  try {
    const [home, tmp] = [join(temporary.path, "home"), join(temporary.path, "tmp")];
    for (const each of [home, tmp]) await mkdir(each, { mode: 0o700 });
    const { sandbox, whyNot } = await findSandbox({ directory: temporary.path, hostname: request.vmId, network: request.network });
    pipes = await makePipes();
    const surroundings = sandbox === undefined ? { home, variables: { ...variables(home), TMPDIR: tmp } } : { home: sandboxHome, variables: variables(sandboxHome) };
    const { exec, begun, end } = oneCommand(request, pipes, surroundings, sandbox);
    return {
      vmId: request.vmId,
      bootMs: performance.now() - begin,
      executionMode: "host_compat",
      warning: hostWarning(request, whyNot),
      channel: { exec },
      begun,
      end: async () => {
        await end();
        await temporary.remove();
      },
    };
  } catch (error) {
    pipes?.close();
    await temporary.remove();
    throw error;
  }
}

/** What is not isolated, and why. `whyNot` says why there is no sandbox; undefined where there is one. */
export function hostWarning({ reason, network }: Pick<HostRequest, "reason" | "network">, whyNot: string | undefined): string {
  const why = `no VM can be had: ${harmlessLine(reason.split("\n")[0]!, 300)}`;
  if (whyNot === undefined) {
    return `The command runs ON THE HOST and not in a VM: ${why} A bubblewrap sandbox hides your files${network ? " and processes" : ", processes and the network"} from it, and that is all: it shares the host's kernel${network ? ", its network" : ""} and its memory, processors and disk without a limit.`;
  }
  return `The command runs ON THE HOST and not in a VM: ${why} NOTHING isolates it: it can read, change and delete your files, use the network, and see and end your processes. ${whyNot}`;
}

/** What a guest sets for a command, without anything of the user's own. */
function variables(home: string): Record<string, string> {
  const name = userName();
  return {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: home,
    USER: name,
    LOGNAME: name,
    SHELL: shell(),
    LANG: "C.UTF-8",
  };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "unknown"); // one that no file knows
  }
}

function shell(): "/bin/bash" | "/bin/sh" {
  return existsSync("/bin/bash") ? "/bin/bash" : "/bin/sh";
}

/** The one command of a host, as a guest's channel would run it. */
function oneCommand(
  request: HostRequest,
  pipes: Pipes,
  surroundings: { home: string; variables: Record<string, string> },
  sandbox: Sandbox | undefined,
): { exec: (command: ExecRequest) => RunningCommand; begun: Promise<void>; end: () => Promise<void> } {
  let started: ReturnType<typeof attendChild> | undefined;
  let onBegun = () => {};
  const begun = new Promise<void>((resolve) => (onBegun = resolve));
  const end = async () => {
    pipes.close();
    await (await started?.catch(() => undefined))?.end();
  };
  const start = async (command: ExecRequest) => {
    const environment = { ...surroundings.variables, ...command.env };
    return attendChild(wordsOf(command), {
      cwd: command.cwd ?? surroundings.home,
      // bubblewrap itself gets nothing but the bare one.
      environment: sandbox === undefined ? environment : childEnvironment(),
      pipes,
      stdin: command.stdin === true,
      ttlSeconds: request.ttlSeconds,
      ...(sandbox !== undefined && { wrapper: { words: sandbox.words, options: sandbox.options(environment), keeper: sandbox.keeper } }),
      ...(request.place !== undefined && { place: { directory: request.place, listen: [], log: [] } }),
    });
  };
  const exec = (command: ExecRequest): RunningCommand => {
    const begin = performance.now();
    started = start(command);
    const result = started.then(async (attended) => {
      attended.started.then(onBegun, onBegun);
      return outcomeOf(await attended.ended, performance.now() - begin);
    });
    result.catch(onBegun);
    return {
      stdin: command.stdin === true ? pipes.stdin : undefined,
      stdout: pipes.stdout,
      stderr: pipes.stderr,
      result,
      signal: (number) => void started?.then((attended) => attended.signal(number), () => {}),
      cancel: () => void started?.then((attended) => attended.end(), () => {}),
    };
  };
  return { exec, begun, end };
}

/** Throws UNSUPPORTED for what only a guest can do. */
function wordsOf(command: ExecRequest): readonly [string, ...string[]] {
  if (command.user !== undefined) throw new PyroError("UNSUPPORTED", "A command on the host runs as you; it can't become another user.", { hint: "Leave out --user (user)." });
  if (command.tty !== undefined) throw new PyroError("UNSUPPORTED", "A command on the host has no terminal of its own.", { hint: "Leave out -t." });
  if (command.argv === undefined) return [shell(), "-lc", command.shell];
  const words = command.argv.map((word) => {
    const text = word.toString();
    if (typeof word !== "string" && !Buffer.from(text).equals(word)) throw new PyroError("UNSUPPORTED", "A command on the host can't have arguments that are not UTF-8.");
    return text;
  });
  return words as [string, ...string[]];
}

function outcomeOf(end: AttendedEnd, durationMs: number): ExecOutcome {
  const counts = { durationMs, stdoutBytes: 0, stderrBytes: 0 };
  if ("exit" in end) return { exitCode: end.exit, ...counts };
  if ("signal" in end) return { exitCode: 128 + end.signal, signal: end.signal, ...counts };
  if ("failed" in end) return { failure: { stage: end.failed.stage, errno: end.failed.errno, message: end.failed.text } };
  if (end.lost === "ended") return { exitCode: 137, signal: 9, ...counts };
  if (end.lost === "ttl") throw new PyroError("TIMEOUT", "The time to live ended before the command did.", { hint: "Give a larger --ttl-seconds (ttl_seconds)." });
  throw new PyroError("VMM_EXITED", "What runs the command on the host was ended by somebody else.");
}
