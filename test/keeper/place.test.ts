// What others find of a kept program in a directory (keeper/place.h): its sockets, its logs, its end. Both builds.
import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../src/base/paths.js";
import { connectIn } from "../../src/vmm/place.js";

await promisify(execFile)("make", ["-s", "-C", join(packageRoot, "keeper"), "all", "sanitize"]);
const builds = { static: join(packageRoot, "build/x86_64/pyro-keeper"), sanitize: join(packageRoot, "build/x86_64/sanitize/pyro-keeper") };

let root: string;
beforeAll(() => void (root = mkdtempSync(join(tmpdir(), "pyro-place-test-"))));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const started: ChildProcess[] = [];
const sockets: Socket[] = [];
afterEach(() => {
  for (const each of sockets.splice(0)) each.destroy();
  for (const each of started.splice(0)) each.kill("SIGKILL");
});

let count = 0;
function newPlace(): string {
  const directory = join(root, String(count++));
  mkdirSync(directory, { mode: 0o700 });
  return directory;
}

const socketFd = 3;
const logFd = 4;
const lifelineFd = 5;
const sleeper = ["/bin/sh", "-c", "echo $$ >&4; exec sleep 1000"];
/** Answers each connection to the socket with what it gets. */
const echo = [process.execPath, "-e", `require("net").createServer((c) => c.on("error", () => {}).pipe(c)).listen({ fd: ${socketFd} })`];

describe.each(Object.entries(builds))("%s build", (_, program) => {
  function keep(place: string, command: readonly string[], options: readonly string[] = []): ChildProcess {
    const words = ["keep", "--lifeline", String(lifelineFd), "--grace-ms", "0", "--place", place, "--listen", `${socketFd}=port.0`, "--log", `${logFd}=console.log`, ...options, "--", ...command];
    const child = spawn(program, words, { stdio: ["ignore", "ignore", "pipe", "ignore", "ignore", "pipe"] });
    started.push(child);
    lifeline(child).on("error", () => {}); // it may end before we say anything
    return child;
  }
  const lifeline = (child: ChildProcess) => (child.stdio as unknown as Duplex[])[lifelineFd]!;

  /** One that runs, found by others. */
  async function kept(command: readonly string[] = sleeper, options: readonly string[] = []) {
    const place = newPlace();
    const child = keep(place, command, options);
    await serving(place);
    return { place, child, ended: ended(child) };
  }

  it("the program serves the sockets", async () => {
    const { place, child, ended: end } = await kept(echo);
    const socket = await client(place, "port.0");
    expect(await ask(socket, "hello")).toBe("hello");
    const other = await client(place, "port.0");
    expect(await ask(other, "you")).toBe("you");
    lifeline(child).destroy();
    expect(await end).toEqual([137, null]);
    await Promise.all([closed(socket), closed(other)]);
    expect(readdirSync(place).sort()).toEqual(["exit"]);
  });

  it("each socket is the descriptor it was meant for, whatever their order, and whatever the maker left open", async () => {
    const place = newPlace();
    const words = Array.from({ length: 8 }, (_each, n) => ["--listen", `${10 - n}=port.${n}`]).flat();
    const serve = `const net = require("net"); for (let fd = 3; fd <= 10; fd++) net.createServer((c) => c.on("error", () => {}).end(String(fd))).listen({ fd });`;
    const child = spawn(program, ["keep", "--lifeline", "11", "--grace-ms", "0", "--place", place, ...words, "--", process.execPath, "-e", serve], { stdio: [...Array<"ignore">(11).fill("ignore"), "pipe"] });
    started.push(child);
    await serving(place);
    for (let n = 0; n < 8; n++) expect(await ask(await client(place, `port.${n}`), "?", /[0-9]/)).toMatch(String(10 - n));
  });

  it("tells the program's process id", async () => {
    const { place } = await kept();
    await until(() => logOf(place) !== "");
    const control = await client(place);
    expect(await ask(control, "p", /\n/)).toBe(logOf(place));
    expect(await ask(control, "pp", /\n.*\n/)).toBe(logOf(place).repeat(2));
  });

  it("has one owner, and ends when that one goes", async () => {
    const { place, ended: end } = await kept();
    const [owner, other] = [await client(place), await client(place)];
    expect(await ask(owner, "o")).toBe("y");
    expect(await ask(other, "o")).toBe("n");
    expect(await ask(owner, "o")).toBe("y"); // it still is
    other.destroy(); // means nothing
    expect(await ask(owner, "p", /\n/)).toMatch(/^[0-9]+\n$/);
    const third = await client(place);
    owner.destroy();
    await closed(third);
    expect(await end).toEqual([137, null]);
    expect(exitOf(place)).toBe("owner 137\n");
  });

  it("ends also when its owner only says that it will say no more", async () => {
    const { place, ended: end } = await kept(["/bin/sh", "-c", "exec sleep 1000"]);
    const owner = await client(place);
    expect(await ask(owner, "o")).toBe("y");
    owner.end(); // half of it is enough
    await end;
    expect(exitOf(place)).toBe("owner 137\n");
  });

  it("ends when asked to, and the connection ends when all is gone", async () => {
    const mark = `1000.${Math.floor(Math.random() * 1e6)}`;
    const { place, ended: end } = await kept(["/bin/bash", "-c", `setsid sh -c 'trap "" TERM HUP; sleep ${mark} & sleep ${mark}' & exec sleep ${mark}`]);
    await until(() => processesWith(mark).length > 2);
    const control = await client(place);
    control.write("e");
    await closed(control);
    expect(processesWith(mark)).toEqual([]);
    expect(await end).toEqual([137, null]);
    expect(exitOf(place)).toBe("asked 137\n");
  });

  it.each([["its owner", true], ["somebody else", false]])("ended by %s while it is owned, the owner is the cause", async (_who, byOwner) => {
    const { place, ended: end } = await kept();
    const [owner, other] = [await client(place), await client(place)];
    expect(await ask(owner, "o")).toBe("y");
    (byOwner ? owner : other).write("e");
    await end;
    expect(exitOf(place)).toBe("owner 137\n");
  });

  it("lets go of whoever talks nonsense, and of nobody else", async () => {
    const { place, child } = await kept();
    const good = await client(place);
    for (const nonsense of ["x", "\0", "GET / HTTP/1.1\r\n\r\n", "pppppppppppppppppppppppppppx", Buffer.alloc(100_000, 255)]) {
      const bad = await client(place);
      bad.write(nonsense);
      await closed(bad);
    }
    expect(await ask(good, "p", /\n/)).toMatch(/^[0-9]+\n$/);
    expect(child.exitCode).toBe(null);
  });

  it("an owner that talks nonsense is gone", async () => {
    const { place, ended: end } = await kept();
    const owner = await client(place);
    expect(await ask(owner, "o")).toBe("y");
    owner.write("?");
    await end;
    expect(exitOf(place)).toBe("owner 137\n");
  });

  it("answers 100 clients, and as many more as there is no room for when others leave", async () => {
    const { place, ended: end } = await kept();
    const all = await Promise.all(Array.from({ length: 100 }, () => client(place)));
    expect(new Set(await Promise.all(all.map((each) => ask(each, "p", /\n/)))).size).toBe(1);
    const more: Socket[] = [];
    for (let n = 0; n < 200; n++) more.push(await client(place)); // one after another: who came first is served first
    const answers = more.map((each) => ask(each, "p", /\n/));
    await Promise.all(answers.slice(0, 100));
    for (const each of all) each.destroy();
    expect(new Set(await Promise.all(answers)).size).toBe(1);
    more[199]!.write("e");
    await Promise.all(more.map(closed));
    await end;
    expect(exitOf(place)).toBe("asked 137\n");
  });

  it("a client that never reads holds up nobody", async () => {
    const { place } = await kept();
    const deaf = await client(place);
    deaf.pause();
    for (let n = 0; n < 200; n++) deaf.write("p".repeat(10_000));
    const control = await client(place);
    for (let n = 0; n < 20; n++) expect(await ask(control, "p", /\n/)).toMatch(/^[0-9]+\n$/);
  });

  it("released, it lives on without its maker, who may be killed", async () => {
    const place = newPlace();
    const words = ["keep", "--lifeline", "5", "--grace-ms", "0", "--place", place, "--log", "4=console.log", "--", ...sleeper];
    const script = `const c = require("child_process").spawn(${JSON.stringify(program)}, ${JSON.stringify(words)}, { stdio: ["ignore", "ignore", "ignore", "ignore", "ignore", "pipe"], detached: true });
      c.stdio[5].write("r", () => process.stdout.write("released")); setInterval(() => {}, 1000);`;
    const maker = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    started.push(maker);
    await once(maker.stdout!, "data");
    maker.kill("SIGKILL");
    await ended(maker);
    await serving(place);
    const control = await client(place);
    const pid = Number(await ask(control, "p", /\n/));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(isAlive(pid)).toBe(true);
    expect(exitOf(place)).toBe(undefined);
    control.write("e");
    await closed(control);
    expect(isAlive(pid)).toBe(false);
    expect(exitOf(place)).toBe("asked 137\n");
  });

  it("what the maker said before it went counts, also when both are seen at once", async () => {
    for (let round = 0; round < 5; round++) {
      const place = newPlace();
      const child = keep(place, sleeper);
      const end = ended(child);
      lifeline(child).end("r");
      await serving(place);
      const control = await client(place);
      expect(await ask(control, "p", /\n/)).toMatch(/^[0-9]+\n$/);
      control.write("e");
      await end;
      expect(exitOf(place)).toBe("asked 137\n");
    }
  });

  it("says how it ended", async () => {
    const cases: [string, readonly string[], readonly string[], (child: ChildProcess) => void, number][] = [
      ["maker 137\n", sleeper, [], (child) => void lifeline(child).destroy(), 137],
      ["signal 137\n", sleeper, [], (child) => void child.kill("SIGTERM"), 137],
      ["ttl 137\n", sleeper, ["--ttl-seconds", "1"], () => {}, 124],
      ["ttl 137\n", sleeper, ["--ttl-seconds", "1"], (child) => void lifeline(child).end("r"), 124],
      ["program 0\n", ["/bin/sleep", "0.2"], [], () => {}, 0],
      ["program 42\n", ["/bin/sh", "-c", "sleep 0.2; exit 42"], [], () => {}, 42],
      ["program 139\n", ["/bin/sh", "-c", "sleep 0.2; kill -SEGV $$"], [], () => {}, 139],
    ];
    for (const [text, command, options, act, status] of cases) {
      const { place, child, ended: end } = await kept(command, options);
      act(child);
      expect(await end).toEqual([status, null]);
      expect(exitOf(place)).toBe(text);
      expect(existsSync(join(place, "control"))).toBe(false);
    }
  });

  it("the first cause counts", async () => {
    const { place, child, ended: end } = await kept(["/bin/sh", "-c", "exec sleep 1000"]);
    const owner = await client(place);
    expect(await ask(owner, "o")).toBe("y");
    child.kill("SIGSTOP");
    await until(() => /^State:\s+T/m.test(readFileSync(`/proc/${child.pid}/status`, "latin1")));
    lifeline(child).end("r");
    owner.destroy();
    child.kill("SIGCONT");
    await end;
    expect(exitOf(place)).toBe("owner 137\n");
  });

  it("keeps the end of a log of 10 MB within its limits", async () => {
    const place = newPlace();
    const child = keep(place, ["/bin/sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x >&4; printf END >&4"]);
    expect(await ended(child)).toEqual([0, null]);
    const sizes = ["console.log.1", "console.log"].map((name) => statSync(join(place, name)).size);
    expect(sizes[0]).toBe(65_536);
    expect(sizes[1]).toBeLessThanOrEqual(65_536);
    expect(logOf(place).slice(-6)).toBe("xxxEND");
  });

  it("a program that waits for its log to be taken is not held up by a reader that is none", async () => {
    const place = newPlace();
    const end = ended(keep(place, ["/bin/sh", "-c", `while [ ! -e ${place}/go ]; do sleep 0.02; done; head -c 3000000 /dev/zero >&4; exit 5`]));
    await serving(place);
    const deaf = await client(place);
    deaf.pause();
    deaf.write("p".repeat(10_000));
    writeFileSync(join(place, "go"), "");
    expect(await end).toEqual([5, null]);
  });

  it("is found where an earlier keeper was killed and left its names", async () => {
    const place = newPlace();
    const first = keep(place, sleeper);
    await until(() => logOf(place) !== "");
    const pid = Number(logOf(place));
    const control = await client(place);
    first.kill("SIGKILL");
    await closed(control);
    await until(() => !isAlive(pid)); // it took the program along
    expect(readdirSync(place).sort()).toEqual(["console.log", "control", "exit.new", "port.0"]);
    expect(exitOf(place)).toBe(undefined);
    await expect(connectIn(place, "control")).rejects.toMatchObject({ code: "ECONNREFUSED" });
    writeFileSync(join(place, "exit"), "program 0\n");
    const second = keep(place, sleeper);
    const end = ended(second);
    await until(() => !["", `${pid}\n`].includes(logOf(place)));
    expect(exitOf(place)).toBe(undefined);
    const again = await client(place);
    expect(await ask(again, "p", /\n/)).toBe(logOf(place));
    again.write("e");
    await end;
    expect(exitOf(place)).toBe("asked 137\n");
  });

  it.each([150, 1000, 3500])("a path of %i bytes is none too many", async (length) => {
    let place = newPlace();
    while (place.length < length) place = join(place, "d".repeat(Math.min(200, Math.max(1, length - place.length - 1))));
    mkdirSync(place, { recursive: true });
    const child = keep(place, echo);
    const end = ended(child);
    await serving(place);
    expect(await ask(await client(place, "port.0"), "far")).toBe("far");
    (await client(place)).write("e");
    await end;
    expect(exitOf(place)).toBe("asked 137\n");
  });

  it("waits for an earlier keeper that is still at ending its program, which takes nothing of the later one's along", async () => {
    let [place, later] = ["", undefined as ChildProcess | undefined];
    // The later one waits for five seconds: tried again where all stood still for that long.
    for (let tries = 0; later === undefined && tries < 10; tries++) {
      const earlier = await kept(["/bin/sh", "-c", 'trap "sleep 0.3; exit 0" TERM; echo ready >&4; while :; do sleep 0.02; done'], ["--grace-ms", "60000"]);
      place = earlier.place;
      await until(() => logOf(place) === "ready\n");
      lifeline(earlier.child).destroy();
      const next = keep(place, sleeper);
      expect(await earlier.ended).toEqual([0, null]);
      await until(() => next.exitCode !== null || /^[0-9]+\n$/.test(logOf(place)));
      if (next.exitCode === null) later = next;
    }
    expect(await ask(await client(place), "p", /\n/)).toBe(logOf(place));
    expect(readdirSync(place).sort()).toEqual(["console.log", "control", "exit.new", "port.0"]);
    lifeline(later!).destroy();
    expect(await ended(later!)).toEqual([137, null]);
    expect(exitOf(place)).toBe("maker 137\n");
  });

  it("ends with its maker while it waits for an earlier keeper, and takes nothing of that one's along", async () => {
    const { place } = await kept();
    await until(() => logOf(place) !== "");
    const other = keep(place, sleeper);
    const said = text(other.stderr!);
    lifeline(other).destroy();
    expect(await ended(other)).toEqual([125, null]);
    expect(await said).toContain(`the place ${place}: Operation canceled`);
    expect(await ask(await client(place), "p", /\n/)).toBe(logOf(place));
    expect(readdirSync(place).sort()).toEqual(["console.log", "control", "exit.new", "port.0"]);
  });

  // Five seconds: once will do.
  if (program === builds.static) it("starts nothing where another keeper is and stays, and says so", async () => {
    const { place } = await kept();
    await until(() => logOf(place) !== "");
    const other = keep(place, sleeper);
    const said = text(other.stderr!);
    expect(await ended(other)).toEqual([125, null]);
    expect(await said).toContain(`the place ${place}: Device or resource busy`);
    expect(await ask(await client(place), "p", /\n/)).toBe(logOf(place));
    expect(readdirSync(place).sort()).toEqual(["console.log", "control", "exit.new", "port.0"]);
  });

  it("ends when its directory is removed: nobody could find it any more", async () => {
    const { place, ended: end } = await kept();
    rmSync(place, { recursive: true });
    expect(await end).toEqual([137, null]);
  });

  it("starts nothing where there can be no place, and says so", async () => {
    const mark = `1000.${Math.floor(Math.random() * 1e6)}`;
    const place = newPlace();
    const words = (options: readonly string[]) => ["keep", "--lifeline", "5", "--grace-ms", "0", ...options, "--", "/bin/sleep", mark];
    const directory = newPlace();
    mkdirSync(join(directory, "control")); // can't be replaced by a socket
    for (const [options, complaint] of [
      [["--place", join(place, "not-there")], "No such file or directory"],
      [["--place", "/etc/passwd"], "Not a directory"],
      [["--place", directory], "Address already in use"],
      [["--place", place, "--listen", "5=port.0"], "below the lifeline"],
      [["--place", place, "--log", "78=console.log"], "below the lifeline"],
      [["--listen", "3=port.0"], "need --place"],
      [["--place", place, "--listen", "3=../x"], "FD=NAME"],
      [["--place", place, "--listen", "3=.x"], "FD=NAME"],
      [["--place", place, "--listen", "3="], "FD=NAME"],
      [["--place", place, "--listen", "-3=x"], "FD=NAME"],
      [["--place", place, ...Array.from({ length: 10 }, (_each, n) => ["--listen", `3=s${n}`]).flat()], "FD=NAME"],
      [["--place", place, ...Array.from({ length: 4 }, (_each, n) => ["--log", `4=l${n}`]).flat()], "FD=NAME"],
    ] as const) {
      const child = spawn(program, words(options), { stdio: ["ignore", "ignore", "pipe", "ignore", "ignore", "pipe"] });
      started.push(child);
      let said = "";
      child.stderr!.on("data", (chunk) => (said += String(chunk)));
      expect(await ended(child), options.join(" ")).toEqual([125, null]);
      await until(() => child.stderr!.readableEnded);
      expect(said).toContain(complaint);
      expect(processesWith(mark)).toEqual([]);
    }
  });

  it("a directory that it may not write to any more costs the log and nothing else", async () => {
    const asUser = process.getuid!() === 0 ? ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"] : [];
    const place = newPlace();
    const copy = join(place, "keeper"); // where this user can execute it
    writeFileSync(copy, readFileSync(program), { mode: 0o755 });
    const directory = join(place, "place");
    mkdirSync(directory);
    chmodSync(root, 0o755);
    for (const each of [place, directory]) chmodSync(each, 0o777);
    const words = ["keep", "--lifeline", "5", "--grace-ms", "0", "--place", directory, "--log", "4=console.log", "--", "/bin/sh", "-c", "echo one >&4; read x <&3; echo two >&4; exit 9"];
    const [command, ...args] = [...asUser, copy, ...words];
    const child = spawn(command!, args, { stdio: ["ignore", "ignore", "pipe", "pipe", "ignore", "pipe"] });
    started.push(child);
    const end = ended(child);
    await until(() => existsSync(join(directory, "console.log")));
    rmSync(join(directory, "console.log"));
    chmodSync(directory, 0o555);
    (child.stdio[3] as unknown as Duplex).end("go\n");
    expect(await end).toEqual([9, null]);
    const denied = spawn(command!, args, { stdio: ["ignore", "ignore", "pipe", "ignore", "ignore", "pipe"] });
    started.push(denied);
    expect(await ended(denied)).toEqual([125, null]);
    chmodSync(directory, 0o777);
  });

  it("a full disk costs the log and nothing else: how it ended is said all the same", async ({ skip }) => {
    const place = newPlace();
    if (!mounted(["-t", "tmpfs", "-o", "size=256k", "tmpfs", place])) return skip("no file system can be mounted here");
    try {
      const child = keep(place, ["/bin/sh", "-c", "echo one >&4; while [ ! -e go ]; do cd " + place + "; sleep 0.02; done; head -c 1000000 /dev/zero >&4; exit 3"]);
      const end = ended(child);
      await until(() => logOf(place) === "one\n");
      try {
        writeFileSync(join(place, "filler"), Buffer.alloc(1 << 20));
      } catch (error) {
        expect(error).toMatchObject({ code: "ENOSPC" });
      }
      mkdirSync(join(place, "go")); // takes no block
      expect(await end).toEqual([3, null]);
      expect(exitOf(place)).toBe("program 3\n");
    } finally {
      execFileSync("umount", ["--lazy", place]);
    }
  });
});

async function client(place: string, name = "control"): Promise<Socket> {
  const socket = await connectIn(place, name);
  sockets.push(socket);
  return socket;
}

/** The name is there a moment before anybody listens. A short program may have ended meanwhile. */
async function serving(place: string): Promise<void> {
  for (;;) {
    try {
      return void (await connectIn(place, "control")).destroy();
    } catch {
      if (existsSync(join(place, "exit"))) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Sends, and resolves with what came once it matches. */
function ask(socket: Socket, question: string, pattern = /[^]/): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const onClose = () => reject(new Error(`closed after ${JSON.stringify(text)}`));
    const onData = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (!pattern.test(text)) return;
      socket.off("data", onData).off("close", onClose);
      resolve(text);
    };
    socket.on("data", onData).on("close", onClose);
    socket.write(question);
  });
}

async function closed(socket: Socket): Promise<void> {
  socket.resume();
  await new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once("close", () => resolve()))); // a reset before it is no failure
}

async function ended(child: ChildProcess): Promise<[number | null, string | null]> {
  if (child.exitCode !== null || child.signalCode !== null) return [child.exitCode, child.signalCode];
  return (await once(child, "exit")) as [number | null, string | null];
}

function logOf(place: string): string {
  return existsSync(join(place, "console.log")) ? readFileSync(join(place, "console.log"), "latin1") : "";
}

function exitOf(place: string): string | undefined {
  return existsSync(join(place, "exit")) ? readFileSync(join(place, "exit"), "latin1") : undefined;
}

function mounted(args: readonly string[]): boolean {
  try {
    execFileSync("mount", args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

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

/** Resolves when `condition` holds; the test's own timeout is the limit. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
}
