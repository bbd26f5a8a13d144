import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, existsSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../src/base/paths.js";

await promisify(execFile)("make", ["-s", "-C", join(packageRoot, "keeper"), "all", "sanitize"]);
const builds = { static: join(packageRoot, "build/x86_64/pyro-keeper"), sanitize: join(packageRoot, "build/x86_64/sanitize/pyro-keeper") };

let root: string;
beforeAll(() => void (root = mkdtempSync(join(tmpdir(), "pyro-beside-"))));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const started: ChildProcess[] = [];
afterEach(() => {
  for (const each of started.splice(0)) each.kill("SIGKILL");
});

/** What both programs here are: a shell, as bash because of its long descriptors. */
const bash = (script: string) => ["/bin/bash", "-c", script];

describe.each(Object.entries(builds))("%s build", (_, keeper) => {
  /** The kept program has 3 (a socket of ours) and 5 (the cable); the second one 3 (the cable) and, as 4, our 4. The lifeline is 9. */
  function keep(program: string[], second: string[], options: string[] = []): ChildProcess {
    const child = spawn(keeper, ["keep", "--lifeline", "9", "--grace-ms", "0", "--beside", String(second.length), "--cable", "5=3", "--give", "4=4", ...options, "--", ...second, ...program], {
      stdio: ["ignore", "pipe", "pipe", "pipe", "pipe", "ignore", "ignore", "ignore", "ignore", "pipe"],
    });
    started.push(child);
    return child;
  }
  const stream = (child: ChildProcess, fd: number) => child.stdio[fd] as unknown as Duplex;

  it("connects the two, and each has its own descriptors and no others", async () => {
    // What is open, told by one that opens nothing meanwhile.
    const list = "import os, stat\ndef kind(fd):\n  try: return 'socket' if stat.S_ISSOCK(os.fstat(fd).st_mode) else os.readlink(f'/proc/self/fd/{fd}')\n  except OSError: return None\nfound = [(fd, kind(fd)) for fd in range(64)]\nprint(*[f'{fd}={what}' for fd, what in found if what])";
    const child = keep(
      bash(`echo to the second >&5; read -u 5 line; echo "kept: $line" >&3; python3 -c "$LIST" >&3; read -u 3 x`.replace("$LIST", list)),
      bash(`read -u 3 line; echo "second: $line" >&4; python3 -c "$LIST" >&4; echo to the kept >&3; read -u 3 x`.replace("$LIST", list)),
    );
    expect(await lines(stream(child, 3), 2)).toEqual(["kept: to the kept", "0=/dev/null 1=socket 2=socket 3=socket 5=socket"]);
    expect(await lines(stream(child, 4), 2)).toEqual(["second: to the second", "0=/dev/null 1=socket 2=/dev/null 3=socket 4=socket"]);
  });

  it("the second one sees the kept one's end and may write something down, and nothing is left", async () => {
    const child = keep(bash("echo $$; read -u 3 x; exit 7"), bash("echo $$ >&4; read -u 3 x; sleep 0.2; echo over >&4"));
    const [kept] = await lines(child.stdout as unknown as Duplex, 1);
    const [second] = await lines(stream(child, 4), 1);
    stream(child, 3).write("go\n");
    const said = lines(stream(child, 4), 1);
    expect(await ended(child)).toEqual([7, null]);
    expect(await said).toEqual(["over"]);
    expect([kept, second].map((pid) => existsSync(`/proc/${pid}`))).toEqual([false, false]);
  });

  it("a second one that hangs is killed with what it started", async () => {
    const child = keep(bash("read -u 3 x; exit 3"), bash("trap '' TERM HUP; sleep 1000 & echo $! >&4; wait; sleep 1000"));
    const [pid] = await lines(stream(child, 4), 1);
    stream(child, 3).write("go\n");
    expect(await ended(child)).toEqual([3, null]);
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  });

  it("the kept one goes on without a second one that ended, and sees that", async () => {
    const child = keep(bash("read -u 5 x || echo cut >&3; read -u 3 x; exit 5"), bash("exit 1"));
    expect(await lines(stream(child, 3), 1)).toEqual(["cut"]);
    stream(child, 3).write("go\n");
    expect(await ended(child)).toEqual([5, null]);
  });

  it("both end when the maker goes", async () => {
    const child = keep(bash("echo $$; read -u 3 x"), bash("echo $$ >&4; sleep 1000"));
    const pids = [...(await lines(child.stdout as unknown as Duplex, 1)), ...(await lines(stream(child, 4), 1))];
    stream(child, 9).destroy();
    expect(await ended(child)).toEqual([137, null]);
    expect(pids.map((pid) => existsSync(`/proc/${pid}`))).toEqual([false, false]);
  });

  it("a keeper that is killed takes both along", async () => {
    const child = keep(bash("echo $$; read -u 3 x"), bash("echo $$ >&4; exec sleep 1000"));
    const pids = [...(await lines(child.stdout as unknown as Duplex, 1)), ...(await lines(stream(child, 4), 1))];
    child.kill("SIGKILL");
    await ended(child);
    for (const pid of pids) while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  it("nothing runs if the second one can't", async () => {
    const child = keep(bash("echo $$ >&3; read -u 3 x"), ["/nonexistent", "word"]);
    const complaint = lines(child.stderr as unknown as Duplex, 1);
    expect(await ended(child)).toEqual([127, null]);
    expect(await complaint).toEqual(["pyro-keeper: can't execute /nonexistent: No such file or directory"]);
  });

  it("has a socket and a log of its own in the place", async () => {
    const place = mkdtempSync(join(root, "place-"));
    const serve = ["/usr/bin/env", "python3", "-c", "import os, socket\nos.write(2, b'said\\n')\nserver = socket.socket(fileno=5)\nclient, _ = server.accept()\nclient.sendall(b'hello\\n')\nos.read(3, 1)"];
    const child = keep(bash("read -u 3 x"), serve, ["--place", place, "--listen-beside", "5=net", "--log-beside", "2=net.log"]);
    const path = join(place, "net");
    const socket = await connected(path);
    expect(await lines(socket, 1)).toEqual(["hello"]);
    socket.destroy();
    stream(child, 3).write("go\n");
    expect(await ended(child)).toEqual([0, null]);
    expect(readFileSync(join(place, "net.log"), "utf8")).toBe("said\n");
    expect(existsSync(path)).toBe(false);
  });

  it("says 125 for what makes no sense", async () => {
    for (const options of [["--cable", "6=3"], ["--cable", "x"], ["--give", "4=99"], ["--give", "4"], ["--beside", "0"], ["--beside", "99"], ["--listen-beside", "5=net"]]) {
      expect([options, await ended(keep(bash("exit 0"), bash("exit 0"), options))]).toEqual([options, [125, null]]);
    }
    for (const options of [["--cable", "5=3"], ["--give", "4=4"], ["--beside", "2"]]) {
      const child = spawn(keeper, ["keep", "--lifeline", "9", "--grace-ms", "0", ...options, "--", "/bin/true"], { stdio: ["ignore", "ignore", "ignore", "ignore", "ignore", "ignore", "ignore", "ignore", "ignore", "pipe"] });
      started.push(child);
      expect([options, await ended(child)]).toEqual([options, [125, null]]);
    }
  });
});

/** To a socket that is about to be there: it has its name a moment before it listens. */
async function connected(path: string): Promise<Duplex> {
  for (;;) {
    const socket = connect({ path });
    const failed = await once(socket, "connect").then(() => undefined, (error: NodeJS.ErrnoException) => error);
    if (failed === undefined) return socket;
    if (failed.code !== "ENOENT" && failed.code !== "ECONNREFUSED") throw failed;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The next lines, without what comes behind them. */
function lines(stream: Duplex, count: number): Promise<string[]> {
  return new Promise((resolve, reject) => {
    let text = "";
    const onData = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      const all = text.split("\n");
      if (all.length <= count) return;
      stream.off("data", onData).off("close", onClose);
      resolve(all.slice(0, count));
    };
    const onClose = () => reject(new Error(`closed after ${JSON.stringify(text)}`));
    stream.on("data", onData).on("close", onClose);
  });
}

async function ended(child: ChildProcess): Promise<[number | null, string | null]> {
  if (child.exitCode !== null || child.signalCode !== null) return [child.exitCode, child.signalCode];
  return (await once(child, "exit")) as [number | null, string | null];
}

function isAlive(pid: string): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}
