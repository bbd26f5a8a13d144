// Completion in the shells themselves: each reads the script that `pyro completion` prints, and somebody presses Tab.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Pty } from "../vm/pty.js";
import { main } from "../built.js";

const directory = mkdtempSync(join(tmpdir(), "pyro-completion-"));
const home = join(directory, "home");
const env = { PATH: `${join(directory, "bin")}:${process.env["PATH"]!}`, HOME: home, XDG_CACHE_HOME: join(home, ".cache"), XDG_STATE_HOME: join(home, ".state"), LC_ALL: "C.UTF-8" };
const names = join(home, ".cache/pyro-mcp/environments/names");
let vm: string;

beforeAll(() => {
  mkdirSync(join(directory, "bin"));
  symlinkSync(main, join(directory, "bin/pyro"));
  mkdirSync(names, { recursive: true });
  writeFileSync(join(names, "registry.example%2Fteam%2Fci%3A1.json"), JSON.stringify({ schema_version: 1, name: "registry.example/team/ci:1", digest: `sha256:${"0".repeat(64)}` }));
  for (const shell of ["bash", "zsh", "fish"]) writeFileSync(join(directory, shell), execFileSync("pyro", ["completion", shell], { env }));
  vm = execFileSync("pyro", ["vm", "create", "debian:12"], { env, encoding: "utf8" }).trim();
});
const opened: Pty[] = [];
afterEach(() => {
  for (const each of opened.splice(0)) each.close();
});
afterAll(() => rmSync(directory, { recursive: true }));

/** What `pyro __complete` offers for these words, the last one unfinished; without the descriptions. */
function offered(...words: string[]): string[] {
  const { stdout, stderr, status } = spawnSync("pyro", ["__complete", ...words], { env, encoding: "utf8" });
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  return stdout.split("\n").slice(0, -1).map((line) => line.split("\t")[0]!);
}

test("commands and subcommands", () => {
  expect(offered("")).toEqual(["run", "env", "vm", "cp", "mcp", "demo", "completion", "doctor", "help"]);
  expect(offered("d")).toEqual(["demo", "doctor"]);
  expect(offered("vm", "st")).toEqual(["start", "stop", "status", "stats"]);
  expect(offered("help", "vm", "ex")).toEqual(["exec"]);
  expect(offered("completion", "")).toEqual(["bash", "zsh", "fish"]);
  expect(offered("nonsense", "")).toEqual([]);
});

test("flags are the command's own, switches once", () => {
  expect(offered("run", "--")).toEqual([
    "--vcpu-count", "--mem-mib", "--disk-mib", "--timeout-seconds", "--ttl-seconds", "--env", "--user", "--workdir", "--entrypoint", "--interactive", "--tty", "--network", "--allow-host", "--deny-host", "--allow-net", "--publish", "--secret", "--audit-file", "--allow-host-compat", "--json", "--quiet", "--help",
  ]);
  expect(offered("vm", "exec", "--env", "A=b", "--json", "-t", vm, "-")).toEqual(["--timeout-seconds", "--env", "--user", "--workdir", "--interactive", "--rm", "--detach", "--job", "--quiet", "--help"]);
  expect(offered("--v")).toEqual(["--version"]);
});

test("environments: the catalog's and what else is installed, where one belongs", () => {
  expect(offered("run", "")).toEqual(["debian:12", "debian:12-base", "debian:12-build", "registry.example/team/ci:1"]);
  expect(offered("env", "pull", "debian:12-b")).toEqual(["debian:12-base", "debian:12-build"]);
  expect(offered("run", "--mem-mib", "512", "--json", "debian:12-bu")).toEqual(["debian:12-build"]);
});

test("VMs in the states that fit the verb", () => {
  expect(offered("vm", "start", "")).toEqual([vm]);
  expect(offered("vm", "exec", "")).toEqual([]); // it was not started
  expect(offered("vm", "stop", "vm-")).toEqual([vm]);
  expect(offered("vm", "delete", "vm-00000000", "")).toEqual([vm]);
  expect(offered("vm", "status", vm, "")).toEqual([]);
});

test("nothing for a flag's value, for the guest's words and behind --", () => {
  for (const words of [["run", "--mem-mib", ""], ["run", "--env", "A"], ["run", "debian:12", ""], ["run", "debian:12", "git", "--"], ["run", "debian:12", "--", ""], ["--", ""], ["env", "list", ""]]) expect(offered(...words), words.join(" ")).toEqual([]);
});

test("whatever is wrong, nothing is printed", () => {
  writeFileSync(join(names, "%ff.json"), "");
  expect(offered("run", "r")).toEqual(["registry.example/team/ci:1"]);
  rmSync(join(names, "%ff.json"));
  const { stdout, stderr, status } = spawnSync("pyro", ["__complete", "vm", "exec", ""], { env: { ...env, HOME: "/nonexistent", XDG_STATE_HOME: "", PYRO_ACCELERATOR: "nonsense" }, encoding: "utf8" });
  expect({ stdout, stderr, status }).toEqual({ stdout: "", stderr: "", status: 0 });
});

// As readline hands a line over: split at the colon, too, and the last word as far as it goes.
test.each([
  ["pyro ru", ["pyro", "ru"], ["run"]],
  ["pyro run debian", ["pyro", "run", "debian"], ["debian:12", "debian:12-base", "debian:12-build"]],
  ["pyro run debian:", ["pyro", "run", "debian", ":"], ["12", "12-base", "12-build"]],
  ["pyro  run --json debian:12-b", ["pyro", "run", "--json", "debian", ":", "12-b"], ["12-base", "12-build"]],
  ["pyro run debian:12 ", ["pyro", "run", "debian", ":", "12", ""], []],
  ["pyro run --env 'A=b c' deb", ["pyro", "run", "--env", "'A=b c'", "deb"], ["debian:12", "debian:12-base", "debian:12-build"]],
] as const)("bash: %s", (line, words, expected) => {
  const script = `source "$1"; shift
[[ $(complete -p pyro) == 'complete -o nosort -F _pyro pyro' ]] || exit 1
COMP_LINE=$1 COMP_POINT=\${#1}; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_pyro && printf '%s\\n' "\${COMPREPLY[@]}"`;
  const out = execFileSync("bash", ["-c", script, "bash", join(directory, "bash"), line, ...words], { env, encoding: "utf8" });
  expect(out.split("\n").filter((each) => each !== "")).toEqual(expected);
});

test.each([
  ["bash", ["bash", "--norc", "--noprofile", "-i"], "source"],
  ["zsh", ["zsh", "-f", "-i"], "autoload -Uz compinit && compinit -u -D && source"],
  ["fish", ["fish", "--no-config", "-i"], "source"],
])("%s: Tab in a terminal", async (name, command, source) => {
  const pty = new Pty(command, { env, columns: 200 });
  opened.push(pty);
  pty.type(`${source} ${join(directory, name)}; echo is read''y\r`);
  await pty.until("is ready");
  // Each is the only one that it may become; the shell puts a blank behind it, so that what is typed next is a word of its own.
  pty.type("pyro env ins\tdebian:12-ba\t--js\t\r");
  await pty.until('"name": "debian:12-base"');
  pty.type("exit\r");
  expect(await pty.exit).toBe(0);
});
