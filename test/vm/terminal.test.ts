// Sessions in a real pseudo-terminal: somebody types, a guest's shell, job control and editors answer, and the terminal is as it was.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Pty, type PtyOptions } from "./pty.js";
import { packageRoot } from "../../src/base/paths.js";
import { eventually, leftovers, pyro, processesWith } from "./pyro.js";
import { main } from "../built.js";

const shell = ["sh", "-c", "echo set enable-bracketed-paste off >~/.inputrc; exec bash --norc --noprofile"];
const prompt = "guest> ";
const opened: Pty[] = [];

let vm: string;
beforeAll(async () => {
  const created = await pyro(["vm", "create", "debian:12", "--ttl-seconds", "3000", "--start"]);
  expect(created.status).toBe(0);
  vm = created.stdout.trim();
  // Readline with all but the two sequences that it puts around each line.
  expect((await pyro(["vm", "exec", vm, "--", "sh", "-c", "echo set enable-bracketed-paste off >~/.inputrc"])).status).toBe(0);
});
afterEach(() => {
  for (const each of opened.splice(0)) each.close();
});
afterAll(async () => {
  expect((await pyro(["vm", "delete", vm])).status).toBe(0);
  expect(leftovers(process.env["HOME"]!)).toEqual([]);
});

function open(args: readonly string[], options: PtyOptions = {}): Pty {
  const pty = new Pty(args, options);
  opened.push(pty);
  return pty;
}

const session = (args: readonly string[], options: PtyOptions = {}) => open([process.execPath, main, ...args], options);
const guestShell = (options: PtyOptions = {}) => session(["vm", "exec", "-it", "--quiet", "--env", `PS1=${prompt}`, vm, "--", ...shell], options);

test("run -it: the phases before, the session, the summary on a line of its own, the status", async () => {
  const pty = session(["run", "-it", "debian:12", "--env", `PS1=${prompt}`, "--", ...shell], { rows: 30, columns: 100 });
  const before = await pty.modes();
  expect(await pty.until(prompt)).toMatch(/\[run\] phase=start environment=debian:12 accelerator=(?:kvm|tcg message=[^\r]+)\r\n\[run\] phase=exec environment=debian:12\r\n/);
  expect(await pty.modes()).not.toBe(before);
  pty.type("stty size; tty; echo $TERM\r");
  expect(await pty.until(prompt)).toBe(`stty size; tty; echo $TERM\r\n30 100\r\n/dev/pts/0\r\nxterm-256color\r\n${prompt}`);
  pty.type("printf unfinished; exit 7\r");
  expect(await pty.until(/exit_code=7 duration_ms=\d+\r\n/)).toMatch(/^printf unfinished; exit 7\r\nunfinishedexit\r\n\[run\] environment=debian:12 execution_mode=guest exit_code=7 duration_ms=\d+\r\n$/);
  expect(await pty.exit).toBe(7);
  expect(await pty.modes()).toBe(before);
});

test("the summary does not stand behind an unfinished line, and a command that is not there is no staircase", async () => {
  const unfinished = session(["run", "-t", "debian:12-base", "--", "printf", "no end"]);
  expect(await unfinished.until(/exit_code=0.*\r\n/)).toContain("no end\r\n[run] environment");
  expect(await unfinished.exit).toBe(0);
  const missing = session(["run", "-t", "debian:12-base", "--", "no-such-program"]);
  expect(await missing.until(/exit_code=127.*\r\n/)).toMatch(/\r\npyro: [^\n]*no-such-program[^\n]*\r\n\[run\] /);
  expect(await missing.exit).toBe(127);
});

test("Ctrl-C ends the guest's sleep and not its shell; Ctrl-Z, jobs, fg and bg are the guest's", async () => {
  const pty = guestShell();
  await pty.until(prompt);
  pty.type("sleep 1000; echo status $?\r");
  await pty.until("$?\r\n");
  await sleeping("sleep 1000");
  pty.type("\x03");
  expect(await pty.until(prompt)).toContain("^C");
  pty.type("echo alive $?\r");
  await pty.until("alive 130\r\n");

  pty.type("sleep 1001\r");
  await pty.until("sleep 1001\r\n");
  await sleeping("sleep 1001");
  pty.type("\x1a");
  await pty.until(/\^Z\r\n\[1\]\+  Stopped +sleep 1001\r\n/);
  pty.type("bg\r");
  await pty.until("[1]+ sleep 1001 &\r\n");
  pty.type("jobs\r");
  await pty.until(/\[1\]\+  Running +sleep 1001 &\r\n/);
  pty.type("fg\r");
  await pty.until("fg\r\nsleep 1001\r\n");
  pty.type("\x03");
  await pty.until(prompt);
  pty.type("sleep 1002\r");
  await pty.until("sleep 1002\r\n");
  await sleeping("sleep 1002");
  pty.type("\x1c");
  await pty.until(/\^\\Quit/);
  pty.type("exit 3\r");
  expect(await pty.exit).toBe(3);
});

/** Until the guest's terminal has this command in its foreground. */
async function sleeping(command: string): Promise<void> {
  for (;;) {
    const { stdout } = await pyro(["vm", "exec", vm, "--quiet", "--", "ps", "-eo", "stat=,args="]);
    if (stdout.split("\n").some((line) => /^S\S*\+ /.test(line) && line.endsWith(` ${command}`))) return;
  }
}

test("a new size reaches the guest", async () => {
  const pty = guestShell({ rows: 10, columns: 40 });
  await pty.until(prompt);
  pty.type("trap 'echo now $(stty size)' WINCH; stty size\r");
  await pty.until("\r\n10 40\r\n");
  await pty.until(prompt);
  pty.resize(50, 132);
  pty.type("\r"); // a trap runs when a command is done
  await pty.until("now 50 132\r\n");
  pty.type("exit\r");
  expect(await pty.exit).toBe(0);
});

test("bytes pass as they are, both ways: escape sequences, bare line feeds, control characters, what is no UTF-8", async () => {
  const pty = session(["vm", "exec", "-it", "--quiet", vm, "--", "sh", "-c", "stty raw -echo; printf 'ready\\n'; head -c 9 | od -An -tx1; printf '\\033[31mred\\033[0m\\n\\377\\000.'"]);
  await pty.until("ready\n");
  expect(pty.output).toBe("ready\n"); // and no carriage return from our side
  pty.type("\x03\x04\x11\x13\x1a\r\n\x7fx");
  await pty.until("\0.");
  expect(pty.output).toBe("ready\n 03 04 11 13 1a 0d 0a 7f 78\n\x1b[31mred\x1b[0m\n\xff\0.");
  expect(await pty.exit).toBe(0);
});

test("what was typed while the VM came up is not lost", async () => {
  const pty = session(["run", "-it", "--env", `PS1=${prompt}`, "debian:12-base", "--", ...shell]);
  await pty.until("phase=start");
  pty.type("echo early; exit 4\r");
  await pty.until("\r\nearly\r\n");
  expect(await pty.exit).toBe(4);
});

test("TERM that is none of terminfo's is not handed on, one that --env gives is", async () => {
  for (const [env, flags, term] of [["$(reboot)", [], "xterm-256color"], ["screen.xterm-256color", [], "screen.xterm-256color"], ["dumb", ["--env", "TERM=vt100"], "vt100"]] as const) {
    const pty = session(["vm", "exec", "-t", "--quiet", ...flags, vm, "--", "sh", "-c", 'echo "<$TERM>"'], { env: { TERM: env } });
    await pty.until(`<${term}>\r\n`);
    expect(await pty.exit).toBe(0);
  }
});

test("-i alone hands a terminal's lines over, and its Ctrl-D ends them", async () => {
  const pty = session(["vm", "exec", "-i", "--quiet", vm, "--", "sh", "-c", "test -t 0 || echo a pipe; cat; echo the end"]);
  await pty.until("a pipe\r\n");
  pty.type("line\r");
  await pty.until("line\r\nline\r\n");
  pty.type("\x04");
  await pty.until("the end\r\n");
  expect(await pty.exit).toBe(0);
});

test("without -i and -t a command in a terminal has an empty standard input", async () => {
  const pty = session(["vm", "exec", "--quiet", vm, "--", "sh", "-c", "cat; test -t 1 || echo none"]);
  await pty.until("none\r\n");
  expect(await pty.exit).toBe(0);
});

test("-t where there is no terminal, and -t with --json, are refused before anything starts", async () => {
  const piped = await pyro(["run", "-it", "debian:12", "--", "bash"]);
  expect(piped).toMatchObject({ status: 125, stdout: "", stderr: "error: Standard input is no terminal, so there is none to give to the command.\nhint: Leave out -t: what is on standard input is handed over without it.\n" });
  const json = session(["vm", "exec", "-ti", "--json", vm, "--", "true"]);
  await json.until("Leave out -t or --json.");
  expect(await json.exit).toBe(125);
});

test("a given time-out holds in a terminal", async () => {
  const pty = session(["vm", "exec", "-t", "--timeout-seconds", "2", vm, "--", "sleep", "1000"]);
  const before = await pty.modes();
  await pty.until(/exit_code=137 duration_ms=\d+ timed_out=true\r\n/);
  expect(await pty.exit).toBe(124);
  expect(await pty.modes()).toBe(before);
});

test.each([
  ["SIGTERM", 143],
  ["SIGHUP", 129],
  ["SIGKILL", -9],
] as const)("the terminal is as it was after %s", async (signal, status) => {
  const pty = guestShell();
  const before = await pty.modes();
  await pty.until(prompt);
  expect(await pty.modes()).not.toBe(before);
  process.kill(await pty.pid(), signal);
  expect(await pty.exit).toBe(status);
  await pty.untilModes((modes) => modes === before); // after SIGKILL it is the keeper that does it
});

test("the terminal is as it was after the VM's death, and the error has a line of its own", async () => {
  const pty = session(["run", "-it", "--env", `PS1=${prompt}`, "debian:12-base", "--", ...shell], { env: { NO_COLOR: "1" } });
  const before = await pty.modes();
  await pty.until(prompt);
  pty.type("echo o >/proc/sysrq-trigger\r");
  await pty.until(/\r\nerror: The guest powered itself off or crashed/);
  expect(await pty.exit).toBe(125);
  expect(await pty.modes()).toBe(before);
});

test("stopped and continued from outside: the terminal is the shell's meanwhile", async () => {
  const pty = guestShell();
  const before = await pty.modes();
  await pty.until(prompt);
  const raw = await pty.modes();
  const pid = await pty.pid();
  process.kill(pid, "SIGTSTP");
  await pty.untilModes((modes) => modes === before);
  await pty.untilStopped();
  pty.resize(33, 99);
  process.kill(pid, "SIGCONT");
  await pty.untilModes((modes) => modes === raw);
  pty.type("stty size\r");
  await pty.until("33 99\r\n");
  pty.type("exit 5\r");
  expect(await pty.exit).toBe(5);
  expect(await pty.modes()).toBe(before);
});

test("as a job of a shell: stopped it is listed, in the background it waits, fg goes on with it", async () => {
  const pty = open(["bash", "--norc", "--noprofile", "-i"]);
  pty.type("set -b; bind 'set enable-bracketed-paste off'; PS1='ho''st> '\r");
  await pty.until("host> ");
  pty.type(`'${process.execPath}' '${main}' vm exec -it --quiet --env 'PS1=gu''est> ' ${vm} -- bash --norc --noprofile &\r`);
  await pty.until(/\[1\]\+  Stopped/); // by itself: it is not its turn to read
  pty.type("fg\r");
  await pty.until(prompt);
  pty.type("echo $((40+2))\r");
  await pty.until("\n42\r\n");
  process.kill(jobOf(await pty.pid()), "SIGTSTP");
  await pty.until(/\[1\]\+  Stopped/);
  await pty.until("host> ");
  pty.type("echo at $((50+5))\r");
  await pty.until("at 55\r\n");
  pty.type("fg\r");
  await pty.until("vm exec");
  pty.type("\r");
  await pty.until(prompt);
  pty.type("exit 6\r");
  await pty.until("host> ");
  pty.type("echo it was $?\r");
  await pty.until("it was 6\r\n");
  pty.type("exit\r");
  expect(await pty.exit).toBe(0);
});

/** The one child of the shell. */
function jobOf(shellPid: number): number {
  return Number(spawnSync("pgrep", ["-P", String(shellPid)], { encoding: "utf8" }).stdout.trim());
}

test("an editor: a file is opened, changed, saved, and the screen is the terminal's", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pyro-terminal-test-"));
  try {
    // The host's own editor with all that it loads: host and guest are both Debian 12.
    const nano = spawnSync("sh", ["-c", `tar -chf ${directory}/nano.tar -C / usr/bin/nano $(ldd /usr/bin/nano | grep -o '/[^ ]*' | sed 's,^/,,') `], { encoding: "utf8" });
    expect(nano).toMatchObject({ status: 0 });
    const unpacked = spawnSync("sh", ["-c", `"$0" "$1" vm exec -i --quiet ${vm} -- tar -xf - -C / --skip-old-files <${directory}/nano.tar`, process.execPath, main], { encoding: "utf8" });
    expect(unpacked).toMatchObject({ status: 0 });
  } finally {
    rmSync(directory, { recursive: true });
  }
  await pyro(["vm", "exec", vm, "--", "sh", "-c", "printf 'first\\nsecond\\n' >/tmp/note"]);
  const pty = session(["vm", "exec", "-it", "--quiet", vm, "--", "nano", "/tmp/note"], { rows: 20, columns: 70 });
  const before = await pty.modes();
  await pty.until("\x1b[?1049h"); // its own screen
  await pty.until(/\^X[^]*first[^]*second/);
  pty.type("\x0e\x05 and more"); // next line, its end
  await pty.until("more");
  pty.type("\x0f"); // write out
  await pty.until("File Name to Write");
  pty.type("\r");
  await pty.until("Wrote 2 lines");
  pty.type("\x18");
  await pty.until("\x1b[?1049l");
  expect(await pty.exit).toBe(0);
  expect(await pty.modes()).toBe(before);
  expect((await pyro(["vm", "exec", vm, "--quiet", "--", "cat", "/tmp/note"])).stdout).toBe("first\nsecond and more\n");
});

test("nothing of a terminal's keeper is left", async () => {
  const left = () => processesWith(`${packageRoot}build/x86_64/pyro-keeper terminal`);
  await eventually(() => left().length === 0);
  expect(left()).toEqual([]);
});
