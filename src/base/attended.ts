/**
 * A child of which it is known exactly what became of it, with pipes for its streams and signals to its process group. Another keeper stands right
 * above it (`keeper/attend.h`), inside of whatever the child is wrapped in; the usual one stands above all of that.
 */
import { keepChild, keeperTtlStatus, type KeeperPlace, type KeptChild } from "./child.js";
import { nativeProgram } from "./paths.js";
import type { Pipes } from "./pipes.js";

export interface AttendedOptions {
  /** Which directory it runs in, and all of its environment. */
  cwd: string;
  environment: Record<string, string>;
  pipes: Pipes;
  /** Whether it gets a standard input, or an empty one. */
  stdin: boolean;
  /** Seconds. Then it is ended with all its descendants, whether or not we live. */
  ttlSeconds: number;
  /**
   * A program that runs the rest of its command line somewhere else, where the keeper is `keeper`. It reads more options, each ended by NUL, from the
   * descriptor that follows its word `--args`.
   */
  wrapper?: { words: readonly [string, ...string[]]; options: readonly string[]; keeper: string };
  place?: KeeperPlace;
}

/** `lost`: it was ended from outside, by us (`end`), its time to live (`ttl`) or somebody else (`killed`). */
export type AttendedEnd =
  | { exit: number }
  | { signal: number }
  | { failed: { stage: string; errno: number; text: string } }
  | { lost: "ended" | "ttl" | "killed" };

export interface Attended {
  started: Promise<{ pid: number }>;
  /** When it has ended with all its descendants. */
  ended: Promise<AttendedEnd>;
  /** To its process group. Linux number, 1 to 64. */
  signal(number: number): void;
  /** Kills it with all its descendants. Resolves when all are gone. */
  end(): Promise<void>;
}

/** Throws HOST_MISSING. */
export async function attendChild(words: readonly [string, ...string[]], options: AttendedOptions): Promise<Attended> {
  const keeper = nativeProgram("pyro-keeper");
  const inner = ["keep", "--lifeline", "3", "--grace-ms", "0", "--attend", options.cwd, "--", ...words];
  const { wrapper } = options;
  const [program, ...args] = wrapper === undefined ? ([keeper, ...inner] as const) : ([...wrapper.words, "--args", "4", "--", wrapper.keeper, ...inner] as const);
  const [stdin, stdout, stderr] = options.pipes.theirs;
  const child = await keepChild(program, args, {
    stdio: [options.stdin ? stdin : "ignore", stdout, stderr, "pipe", ...(wrapper === undefined ? [] : (["pipe"] as const))],
    environment: options.environment,
    ttlSeconds: options.ttlSeconds,
    graceMs: 0,
    ...(options.place !== undefined && { place: options.place }),
  });
  options.pipes.handOver();
  if (wrapper !== undefined) child.stdio[4]!.end(wrapper.options.map((each) => `${each}\0`).join(""));
  return attend(child);
}

function attend(child: KeptChild): Attended {
  const lifeline = child.stdio[3]!;
  let endedByUs = false;
  let said = "";
  let pid: number | undefined;
  let end: AttendedEnd | undefined;
  let onStarted = () => {};
  const started = new Promise<{ pid: number }>((resolve, reject) => {
    onStarted = () => (pid === undefined ? reject(new Error("it was not started")) : resolve({ pid }));
  });
  started.catch(() => {}); // whoever waits for it hears of it
  lifeline.on("data", (chunk: Buffer) => {
    said += chunk.toString("utf8");
    for (let at = said.indexOf("\n"); at >= 0; at = said.indexOf("\n")) {
      const line = said.slice(0, at);
      said = said.slice(at + 1);
      const startedPid = /^started ([0-9]{1,10})$/.exec(line)?.[1];
      if (startedPid === undefined) end ??= parseEnd(line);
      else pid = Number(startedPid);
      onStarted();
    }
    if (said.length > 4096) lifeline.destroy(); // no keeper of ours
  });
  const ended = child.exited.then(({ code }): AttendedEnd => {
    onStarted();
    return end ?? { lost: endedByUs ? "ended" : code === keeperTtlStatus ? "ttl" : "killed" };
  });
  ended.catch(() => {});
  return {
    started,
    ended,
    signal: (number) => {
      if (!lifeline.destroyed) lifeline.write(Buffer.from([number]));
    },
    end: async () => {
      endedByUs = true;
      await child.end();
    },
  };
}

function parseEnd(line: string): AttendedEnd | undefined {
  const [, how, number] = /^(exit|signal) ([0-9]{1,3})$/.exec(line) ?? [];
  if (how !== undefined) return how === "exit" ? { exit: Number(number) } : { signal: Number(number) };
  const [, stage, errno, text] = /^failed ([a-z]{1,7}) ([0-9]{1,4}) (.*)$/.exec(line) ?? [];
  return stage === undefined ? undefined : { failed: { stage, errno: Number(errno), text: text! } };
}
