import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, readlinkSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex, Readable } from "node:stream";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../src/base/paths.js";

// Both builds: the one that is shipped, and the one that watches itself.
await promisify(execFile)("make", ["-s", "-C", join(packageRoot, "keeper"), "all", "sanitize"]);
const builds = { static: join(packageRoot, "build/x86_64/pyro-keeper"), sanitize: join(packageRoot, "build/x86_64/sanitize/pyro-keeper") };

let directory: string;
beforeAll(async () => void (directory = await mkdtemp(join(tmpdir(), "pyro-keeper-test-"))));
afterAll(() => rm(directory, { recursive: true, force: true }));

const started: ChildProcess[] = [];
afterEach(() => {
  for (const each of started.splice(0)) each.kill("SIGKILL");
});

describe.each(Object.entries(builds))("%s build", (_, program) => {
  /** Starts `keep` with the lifeline as descriptor 3. */
  function keep(options: string[], command: string[], graceMs = 0): ChildProcess {
    const child = spawn(program, ["keep", "--lifeline", "3", "--grace-ms", String(graceMs), ...options, "--", ...command], { stdio: ["ignore", "pipe", "pipe", "pipe"] });
    started.push(child);
    return child;
  }
  const lock = (...args: string[]) => {
    const child = spawn(program, ["lock", ...args], { stdio: ["pipe", "pipe", "pipe"] });
    started.push(child);
    return child;
  };

  it("puts a terminal into raw mode and back, but not over what others made of it meanwhile", async () => {
    // A pseudo-terminal of python's, with its modes before, in between and after; `stty` in between is the others.
    const script = `
import os, pty, subprocess, sys, termios
master, slave = pty.openpty()
modes = lambda: termios.tcgetattr(slave)[:4]
for meddle in (False, True):
    before = modes()
    keeper = subprocess.Popen([sys.argv[1], "terminal"], stdin=slave, stdout=subprocess.PIPE, start_new_session=True)
    said, raw = keeper.stdout.read(4), modes()
    if meddle: subprocess.run(["stty", "sane", "-echo"], stdin=slave)
    between = modes()
    keeper.terminate()
    print(said, bool(raw[1] & termios.OPOST), bool(raw[3] & (termios.ISIG | termios.ECHO | termios.ICANON)), keeper.wait(), modes() == before, modes() == between)
`;
    const { stdout } = await promisify(execFile)("python3", ["-c", script, program]);
    expect(stdout).toBe("b'raw\\n' False False 0 True False\nb'raw\\n' False False 0 False True\n");
    expect(await ended(spawn(program, ["terminal"], { stdio: "ignore" }))).toEqual([125, null]);
  });

  it("hands on every exit status", async () => {
    const statuses = [0, 1, 2, 42, 124, 125, 126, 127, 128, 137, 255];
    for (const status of statuses) expect(await ended(keep([], ["/bin/sh", "-c", `exit ${status}`]))).toEqual([status, null]);
  });

  it("says 128+n when signal n ended the program", async () => {
    for (const [name, status] of [["TERM", 143], ["KILL", 137], ["SEGV", 139]] as const) expect(await ended(keep([], ["/bin/sh", "-c", `kill -${name} $$`]))).toEqual([status, null]);
  });

  it("says 127 for a program that is not there and 126 for one that can't be executed", async () => {
    expect(await ended(keep([], ["/nonexistent"]))).toEqual([127, null]);
    expect(await ended(keep([], ["/etc/passwd"]))).toEqual([126, null]);
  });

  it("says 125 for arguments it does not understand", async () => {
    for (const args of [[], ["keep"], ["keep", "--lifeline", "x", "--grace-ms", "0", "--", "/bin/true"], ["keep", "--grace-ms", "0", "--", "/bin/true"], ["keep", "--lifeline", "99", "--grace-ms", "0", "--", "/bin/true"], ["lock"], ["tsc", "x"]]) {
      expect(await ended(spawn(program, args, { stdio: "ignore" })), args.join(" ")).toEqual([125, null]);
    }
  });

  it("ends the program when the lifeline ends", async () => {
    const child = keep([], ["/bin/sh", "-c", "echo $$; exec sleep 1000"]);
    const pid = Number(await line(child));
    (child.stdio[3] as Duplex).destroy();
    expect(await ended(child)).toEqual([137, null]);
    expect(isAlive(pid)).toBe(false);
  });

  it.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("ends the program when it gets %s", async (signal) => {
    const child = keep([], ["/bin/sh", "-c", "echo $$; exec sleep 1000"], 60_000);
    const pid = Number(await line(child));
    child.kill(signal);
    expect(await ended(child)).toEqual([143, null]);
    expect(isAlive(pid)).toBe(false);
  });

  it("kills after the grace what ignores SIGTERM", async () => {
    const child = keep([], ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], 200);
    await line(child);
    (child.stdio[3] as Duplex).destroy();
    expect(await ended(child)).toEqual([137, null]);
  });

  it("lets the program end in its own way within the grace", async () => {
    const child = keep([], ["/bin/sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"], 60_000);
    await line(child);
    (child.stdio[3] as Duplex).destroy();
    expect(await ended(child)).toEqual([7, null]);
  });

  it("ends the program with 124 when its time is over", async () => {
    expect(await ended(keep(["--ttl-seconds", "1"], ["/bin/sleep", "1000"]))).toEqual([124, null]);
    expect(await ended(keep(["--ttl-seconds", "1"], ["/bin/sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"], 100))).toEqual([124, null]);
  });

  it("takes the time to live off nothing that ended before", async () => {
    expect(await ended(keep(["--ttl-seconds", "1000"], ["/bin/true"]))).toEqual([0, null]);
  });

  // Two forks and a new session: out of the group, the session, and not the program's child any more.
  const daemonize = "setsid sh -c 'trap \"\" TERM HUP; (echo $BASHPID $$; exec >/dev/null 2>&1; exec sleep 1000) & sleep 1000' &";
  it.each([
    ["the lifeline ends", `${daemonize} exec sleep 1000`, (child: ChildProcess) => void (child.stdio[3] as Duplex).destroy(), [137, null]],
    ["the program ends by itself", `${daemonize} until [ -e GO ]; do sleep 0.02; done; exit 3`, (_child: ChildProcess, go: string) => writeFileSync(go, ""), [3, null]],
  ] as const)("kills daemons that left the group and the session when %s", async (_why, script, act, status) => {
    const mark = `1000.${Math.floor(Math.random() * 1e6)}`;
    const go = join(directory, `go-${mark}`);
    const child = keep([], ["/bin/bash", "-c", script.replaceAll("1000", mark).replace("GO", go)]);
    await line(child);
    expect(processesWith(mark).length).toBeGreaterThan(1);
    act(child, go);
    expect(await ended(child)).toEqual(status);
    expect(processesWith(mark)).toEqual([]);
  });

  it("leaves nothing of a program whose children never stop forking", async () => {
    const mark = `1000.${Math.floor(Math.random() * 1e6)}`;
    const child = keep([], ["/bin/bash", "-c", `f() { sleep ${mark} & sleep 0.02; f & disown; }; echo go; for i in 1 2 3; do setsid bash -c "$(declare -f f); f; wait" & done; wait`]);
    await line(child);
    await new Promise((resolve) => setTimeout(resolve, 150));
    (child.stdio[3] as Duplex).destroy();
    await ended(child);
    expect(processesWith(mark)).toEqual([]);
  });

  it("ends the program when its maker is killed with SIGKILL, at any moment", async () => {
    for (let round = 0; round < 12; round++) {
      const mark = `1000.${Math.floor(Math.random() * 1e6)}${round}`;
      const script = `const c = require("child_process").spawn(${JSON.stringify(program)}, ["keep", "--lifeline", "3", "--grace-ms", "0", "--", "/bin/sh", "-c", "sleep ${mark} & sleep ${mark}"], { stdio: ["ignore", "ignore", "ignore", "pipe"], detached: true });
        process.stdout.write("x"); setInterval(() => {}, 1000);`;
      const maker = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
      started.push(maker);
      await once(maker.stdout!, "data");
      await new Promise((resolve) => setTimeout(resolve, round * 3));
      maker.kill("SIGKILL");
      await ended(maker);
      await until(() => processesWith(mark).length === 0);
    }
  });

  it("takes the program with it when it is itself killed", async () => {
    const child = keep([], ["/bin/sh", "-c", "echo $$; exec sleep 1000"]);
    const pid = Number(await line(child));
    child.kill("SIGKILL");
    await until(() => !isAlive(pid));
  });

  it("hands on the descriptors, without the lifeline and its own, and keeps none of them", async () => {
    const child = spawn(program, ["keep", "--lifeline", "5", "--grace-ms", "0", "--lock-shared", "/etc/passwd", "--", "/bin/sh", "-c", "ls -m /proc/self/fd; exec 1>&- 4>&-; sleep 1000"], { stdio: ["ignore", "pipe", "ignore", "pipe", "pipe", "pipe"] });
    started.push(child);
    expect(await line(child)).toBe("0, 1, 2, 3, 4, 5"); // 5 is the directory that ls reads; a lifeline left open would move it
    // The program has closed its ends; if the keeper had copies, these would not end.
    await once((child.stdio[4] as Readable).resume(), "end");
    // Left are its own three, lifeline, lock, signals and two timers; it may still be closing.
    await until(() => readdirSync(`/proc/${child.pid}/fd`).length === 8);
    (child.stdio as unknown as Duplex[])[5]!.destroy();
    await ended(child);
  });

  it("gives the program the signal mask and handlers it was itself given", async () => {
    const child = keep([], ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]);
    const text = await output(child);
    expect(text).toBe("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  });

  it("holds its shared locks for as long as the program lives", async () => {
    const file = join(directory, `shared-${Math.random()}`);
    writeFileSync(file, "");
    const child = keep(["--lock-shared", file], ["/bin/sh", "-c", "echo go; sleep 1000"]);
    await line(child);
    expect(await ended(lock("--try", "--", file))).toEqual([75, null]);
    const reader = lock("--shared", "--try", "--", file);
    expect(await line(reader)).toBe("locked");
    reader.stdin!.end();
    expect(await ended(reader)).toEqual([0, null]);
    (child.stdio[3] as Duplex).destroy();
    await ended(child);
    const writer = lock("--try", "--", file);
    expect(await line(writer)).toBe("locked");
    writer.stdin!.end();
    await ended(writer);
  });

  it("starts nothing without its shared lock", async () => {
    const file = join(directory, `held-${Math.random()}`);
    const holder = lock("--", file);
    expect(await line(holder)).toBe("locked");
    const child = keep(["--lock-shared", file], ["/bin/sh", "-c", `touch ${file}.ran`]);
    expect(await ended(child)).toEqual([125, null]);
    expect(existsSync(`${file}.ran`)).toBe(false);
    expect(await ended(keep(["--lock-shared", `${file}.not-there`], ["/bin/true"]))).toEqual([125, null]);
    holder.kill("SIGTERM");
    expect(await ended(holder)).toEqual([0, null]);
  });

  it("waits a moment for a lock that somebody holds only for a moment", async () => {
    const file = join(directory, `moment-${Math.random()}`);
    let status: number | null = 125;
    for (let tries = 0; status === 125 && tries < 10; tries++) {
      const holder = lock("--", file);
      expect(await line(holder)).toBe("locked");
      const child = keep(["--lock-shared", file], ["/bin/true"]);
      const end = ended(child);
      await until(() => hasOpen(child.pid!, file) || child.exitCode !== null);
      holder.kill("SIGTERM");
      [status] = await end; // 125 where we stood still for longer than the moment
    }
    expect(status).toBe(0);
  });

  it("starts nothing with the lock of a file that was removed meanwhile", async () => {
    const file = join(directory, `removed-${Math.random()}`);
    const holder = lock("--", file);
    expect(await line(holder)).toBe("locked");
    const child = keep(["--lock-shared", file], ["/bin/true"]);
    const end = ended(child);
    await until(() => hasOpen(child.pid!, file) || child.exitCode !== null);
    unlinkSync(file);
    holder.kill("SIGTERM");
    expect(await end).toEqual([125, null]);
  });

  it("is not held up by a FIFO in a lock's place", async () => {
    const file = join(directory, `fifo-${Math.random()}`);
    await promisify(execFile)("mkfifo", [file]);
    expect(await ended(keep(["--lock-shared", file], ["/bin/true"]))).toEqual([0, null]);
    const holder = lock("--", file);
    expect(await line(holder)).toBe("locked");
    holder.kill("SIGTERM");
    expect(await ended(holder)).toEqual([0, null]);
  });

  it("says that it waits, and gets the lock when the holder dies", async () => {
    const file = join(directory, `wait-${Math.random()}`);
    const holder = lock("--", file);
    expect(await line(holder)).toBe("locked");
    const waiter = lock("--", file);
    expect(await line(waiter)).toBe("waiting");
    holder.kill("SIGKILL");
    expect(await line(waiter)).toBe("locked");
    waiter.kill("SIGTERM");
    expect(await ended(waiter)).toEqual([0, null]);
  });

  it("stops waiting for a lock when its input ends or it is told to, and leaves no helper behind that would take it", async () => {
    const file = join(directory, `stop-${Math.random()}`);
    const holder = lock("--", file);
    await line(holder);
    for (const stop of [(child: ChildProcess) => void child.stdin!.end(), (child: ChildProcess) => void child.kill("SIGTERM")]) {
      const waiter = lock("--", file);
      expect(await line(waiter)).toBe("waiting");
      stop(waiter);
      expect(await ended(waiter)).toEqual([0, null]);
      await until(() => processesWith(file).length === 1);
    }
    const killed = lock("--", file);
    await line(killed);
    killed.kill("SIGKILL");
    await until(() => processesWith(file).length === 1);
    holder.stdin!.end();
    await ended(holder);
  });

  it("does not take a lock on a file that was replaced while it waited", async () => {
    const file = join(directory, `replaced-${Math.random()}`);
    const holder = lock("--", file);
    await line(holder);
    const waiter = lock("--", file);
    expect(await line(waiter)).toBe("waiting");
    renameSync(file, `${file}.old`);
    const other = lock("--", file); // makes the file anew, and holds it
    expect(await line(other)).toBe("locked");
    holder.kill("SIGTERM");
    await ended(holder);
    other.kill("SIGTERM");
    await ended(other);
    expect(await line(waiter)).toBe("locked");
    expect(await ended(lock("--try", "--", file))).toEqual([75, null]);
    waiter.stdin!.end();
    await ended(waiter);
  });

  it("lets one holder at a time in", async () => {
    const file = join(directory, `many-${Math.random()}`);
    let inside = 0;
    let most = 0;
    await Promise.all(Array.from({ length: 8 }, async () => {
      const child = lock("--", file);
      let said = "";
      for await (const chunk of child.stdout!) {
        said += String(chunk);
        if (!said.endsWith("locked\n")) continue;
        most = Math.max(most, ++inside);
        await new Promise((resolve) => setTimeout(resolve, 10));
        inside--;
        child.stdin!.end();
      }
    }));
    expect(most).toBe(1);
  });

  describe("attended to", () => {
    /** What the keeper tells, and its exit status. */
    async function told(directory: string, command: string[], act: (lifeline: Duplex, line: string) => void = () => {}): Promise<[string, number | null]> {
      const child = keep(["--attend", directory], command);
      const lifeline = child.stdio[3] as Duplex;
      let text = "";
      lifeline.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
      child.stdout!.on("data", (chunk: Buffer) => act(lifeline, String(chunk)));
      await once(child, "close");
      return [text.replace(/^started [0-9]+\n/, "started\n"), child.exitCode];
    }

    it("tells an exit from a signal and from a program that was not executed", async () => {
      expect(await told("/", ["true"])).toEqual(["started\nexit 0\n", 0]);
      for (const status of [1, 124, 125, 126, 127, 137, 255]) expect(await told("/", ["sh", "-c", `exit ${status}`])).toEqual([`started\nexit ${status}\n`, status]);
      for (const signal of [2, 9, 15]) expect(await told("/", ["sh", "-c", `kill -${signal} $$`])).toEqual([`started\nsignal ${signal}\n`, 128 + signal]);
      expect(await told("/", ["no-such-program"])).toEqual(["failed exec 2 no-such-program: command not found\n", 127]);
      expect(await told("/", ["/no/such\nprogram"])).toEqual(["failed exec 2 /no/such program: command not found\n", 127]);
      expect(await told("/", [""])).toEqual(["failed exec 2 : the command's name is empty\n", 127]);
      expect(await told("/", ["/etc/passwd"])).toEqual(["failed exec 13 /etc/passwd: Permission denied\n", 126]);
      expect(await told("/nonexistent", ["true"])).toEqual(["failed chdir 2 /nonexistent: No such file or directory\n", 127]);
      const script = join(directory, "script");
      writeFileSync(script, "#!/no/such/interpreter\n", { mode: 0o755 });
      expect(await told("/", [script])).toEqual([`failed exec 2 ${script}: exists, but its interpreter or loader does not\n`, 127]);
    });

    it("runs in the directory, and passes signals on to the group", async () => {
      const child = keep(["--attend", "/usr"], ["pwd"]);
      expect(await line(child)).toBe("/usr");
      await ended(child);
      expect(await told("/", ["sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"], (lifeline) => void lifeline.write(Buffer.from([0, 65, 2])))).toEqual(["started\nexit 9\n", 9]);
    });
  });

  it("holds pipes for a process of the same user to open", async () => {
    const child = spawn(program, ["pipes", "2"], { stdio: ["pipe", "pipe", "inherit"] });
    started.push(child);
    const [pid, read, write, ...more] = (await line(child)).split(" ").map(Number);
    expect([pid, more.length]).toEqual([child.pid, 2]);
    expect(readlinkSync(`/proc/${pid}/fd/${read}`)).toMatch(/^pipe:/);
    expect(readlinkSync(`/proc/${pid}/fd/${write}`)).toBe(readlinkSync(`/proc/${pid}/fd/${read}`));
    child.stdin!.end();
    expect(await ended(child)).toEqual([0, null]);
  });

  it("takes limits that can't be set for no failure, and words that are none for one", async () => {
    expect(await ended(keep(["--limit", "no.such=1", "--limit", "memory.max=max"], ["/bin/sh", "-c", "exit 3"]))).toEqual([3, null]);
    for (const wrong of ["memory.max", "=1", "../x=1"]) expect(await ended(keep(["--limit", wrong], ["/bin/true"]))).toEqual([125, null]);
  });

  it("measures a rate of the time stamp counter that holds", async () => {
    const measure = async () => Number((await promisify(execFile)(program, ["tsc"])).stdout);
    const rates = await Promise.all([measure(), measure(), measure(), measure()]);
    for (const rate of rates) expect(Math.abs(rate / rates[0]! - 1)).toBeLessThan(100e-6);
    expect(rates[0]).toBeGreaterThan(500_000);
  });
});

async function ended(child: ChildProcess): Promise<[number | null, string | null]> {
  if (child.exitCode !== null || child.signalCode !== null) return [child.exitCode, child.signalCode];
  return (await once(child, "exit")) as [number | null, string | null];
}

/** The next line of standard output. */
async function line(child: ChildProcess): Promise<string> {
  let text = "";
  for (;;) {
    const chunk = child.stdout!.read(1) as Buffer | null;
    if (chunk === null) {
      if (child.stdout!.readableEnded) return text;
      await Promise.race([once(child.stdout!, "readable"), once(child.stdout!, "end")]);
    } else if (chunk[0] === 10) return text;
    else text += chunk.toString("latin1");
  }
}

async function output(child: ChildProcess): Promise<string> {
  let text = "";
  for await (const chunk of child.stdout!) text += String(chunk);
  return text;
}

/** Whether the process is there and not only waiting to be reaped. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

function processesWith(text: string): number[] {
  return readdirSync("/proc").filter((name) => /^[1-9]/.test(name)).map(Number).filter((pid) => {
    try {
      return pid !== process.pid && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(text) && isAlive(pid);
    } catch {
      return false;
    }
  });
}

function hasOpen(pid: number, file: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((each) => readlinkSync(`/proc/${pid}/fd/${each}`) === file);
  } catch {
    return false;
  }
}

/** Resolves when `condition` holds; the test's own timeout is the limit. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
}
