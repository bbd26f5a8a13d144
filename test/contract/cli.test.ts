// The public contract of the command line, as literals: a name that changes here is a breaking change.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { main } from "../built.js";
import { Pty } from "../vm/pty.js";

const home = mkdtempSync(join(tmpdir(), "pyro-contract-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));

function pyro(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: "utf8", input: "", env: { PATH: process.env["PATH"]!, HOME: home } });
}

test("version", () => {
  expect(pyro("--version")).toMatchObject({ status: 0, stdout: "2.1.0\n", stderr: "" });
});

test("commands", () => {
  const { status, stdout } = pyro("--help");
  expect(status).toBe(0);
  expect([...stdout.matchAll(/^  (\w+)(?: \[.*?\])? {2,}/gm)].map((match) => match[1]).filter((name) => name !== "h")).toEqual(["run", "env", "vm", "cp", "mcp", "demo", "completion", "doctor", "help"]);
  expect([...pyro("env", "--help").stdout.matchAll(/^  (\w+)\b/gm)].map((match) => match[1])).toEqual(["list", "pull", "build", "warm", "inspect", "prune", "remove", "export", "help"]);
  expect([...pyro("vm", "--help").stdout.split("Example:")[0]!.matchAll(/^  ([a-z]+)\b/gm)].map((match) => match[1])).toEqual(["create", "start", "exec", "jobs", "attach", "kill", "stop", "delete", "status", "stats", "list", "logs", "network", "audit", "reap", "help"]);
});

test("mcp: subcommands, clients and flags", () => {
  expect([...pyro("mcp", "--help").stdout.matchAll(/^  ([a-z-]+)(?: \[.*?\])? {2,}/gm)].map((match) => match[1])).toEqual(["serve", "install", "uninstall", "print-config", "help"]);
  for (const [verb, flags] of [["install", ["--scope", "--name", "--yes"]], ["uninstall", ["--scope", "--name", "--yes"]], ["print-config", ["--scope", "--name"]]] as const) {
    const { stdout } = pyro("mcp", verb, "--help");
    expect([...stdout.matchAll(/^  (--[a-z-]+)/gm)].map((match) => match[1])).toEqual(flags);
    expect(stdout.replace(/\s+/g, " ")).toContain('(choices: "claude-code", "claude-desktop", "codex", "cursor", "opencode", "vscode")');
    expect(stdout).toContain("Examples:");
    expect(pyro("help", "mcp", verb).stdout).toBe(stdout);
  }
});

test("mcp install: the change is shown; without a terminal and without --yes it is not made", () => {
  const target = mkdtempSync(join(tmpdir(), "pyro-contract-mcp-"));
  const env = { PATH: process.env["PATH"]!, HOME: target };
  const run = (...args: string[]) => spawnSync(process.execPath, [main, "mcp", ...args], { encoding: "utf8", input: "y\n", cwd: target, env });
  try {
    const file = join(target, ".codex/config.toml");
    const refused = run("install", "codex", "--name", "vms");
    expect(refused.status).toBe(2);
    expect(refused.stdout).toContain(`--- /dev/null\n+++ ${file}\n@@ -0,0 +1,3 @@\n+[mcp_servers.vms]\n`);
    expect(refused.stderr).toBe("error: Nothing was changed: standard input is no terminal to ask on.\nhint: pyro mcp install codex --name vms --yes\n");
    expect(readdirSync(target)).toEqual([]);
    expect(run("install", "codex", "--yes")).toMatchObject({ status: 0, stderr: expect.stringContaining(`[mcp] result=added client=codex name=pyro file=${file}\n`) as string });
    expect(run("install", "codex")).toMatchObject({ status: 0, stdout: "", stderr: `[mcp] result=up_to_date client=codex name=pyro file=${file}\n` });
    expect(run("print-config", "codex")).toMatchObject({ status: 0, stdout: readFileSync(file, "utf8"), stderr: `[mcp] client=codex file=${file}\n` });
    expect(run("uninstall", "codex", "--yes")).toMatchObject({ status: 0, stderr: `[mcp] result=removed client=codex name=pyro file=${file}\n` });
    expect(run("uninstall", "codex", "--yes")).toMatchObject({ status: 0, stdout: "", stderr: `[mcp] result=not_there client=codex name=pyro file=${file}\n` });
    expect(run("install", "cursor", "--scope", "project", "--yes")).toMatchObject({ status: 0, stdout: expect.stringContaining(join(target, ".cursor/mcp.json")) as string, stderr: expect.stringContaining("warning: Cursor could not start it here: pyro is not in PATH.\n") as string });
  } finally {
    rmSync(target, { recursive: true });
  }
});

test.each([["y", 0, true], ["n", 1, false], ["", 1, false]])("mcp install asks in a terminal: %j", async (answer, status, made) => {
  const target = mkdtempSync(join(tmpdir(), "pyro-contract-mcp-"));
  const pty = new Pty([process.execPath, main, "mcp", "install", "cursor"], { env: { PATH: process.env["PATH"]!, HOME: target, TERM: "xterm" }, columns: 200 });
  try {
    await pty.until("Make this change? [y/N]");
    pty.type(`${answer}\r`);
    expect(await pty.exit).toBe(status);
    expect(existsSync(join(target, ".cursor/mcp.json"))).toBe(made);
  } finally {
    pty.close();
    rmSync(target, { recursive: true });
  }
});

test("demo, and demo ollama", () => {
  expect([...pyro("demo", "--help").stdout.matchAll(/^  ([a-z]+)(?: \[.*?\])? {2,}/gm)].map((match) => match[1])).toEqual(["ollama"]);
  const { stdout } = pyro("demo", "ollama", "--help");
  expect([...stdout.matchAll(/^  (--[a-z-]+)/gm)].map((match) => match[1])).toEqual(["--model", "--prompt"]);
  expect(stdout).toContain("[demo] result=answered rounds=2 tool_calls=1");
  expect(pyro("help", "demo", "ollama").stdout).toBe(stdout);
});

test("demo ollama: log lines and a final summary line, also where there is no Ollama", () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, "demo", "ollama", "--prompt", "a\nb"], { encoding: "utf8", input: "", env: { PATH: process.env["PATH"]!, HOME: home, OLLAMA_HOST: "127.0.0.1:1" } });
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr.split("\n").map((line) => line.replace(/duration_ms=[0-9]+/, "duration_ms=N"))).toEqual([
    '[demo] prompt="a\\nb"',
    "[demo] round=1 model=llama3.2:3b",
    "[demo] result=failed rounds=1 tool_calls=0 model=llama3.2:3b duration_ms=N",
    expect.stringMatching(/^error: No Ollama answers at http:\/\/127\.0\.0\.1:1: /),
    "hint: Start it with `ollama serve` (https://ollama.com/download), or say with OLLAMA_HOST where it is.",
    "",
  ]);
});

test("flags of run", () => {
  const { stdout } = pyro("run", "--help");
  expect([...stdout.matchAll(/^  ((?:-\w, )?--[a-z-]+)/gm)].map((match) => match[1])).toEqual(["--vcpu-count", "--mem-mib", "--disk-mib", "--timeout-seconds", "--ttl-seconds", "--env", "--user", "--workdir", "--entrypoint", "-i, --interactive", "-t, --tty", "--network", "--allow-host", "--deny-host", "--allow-net", "--publish", "--secret", "--audit-file", "--allow-host-compat", "--json", "--quiet", "-h, --help"]);
  expect(stdout).toContain("Examples:");
  expect(pyro("help", "run").stdout).toBe(stdout);
  expect(pyro("help", "vm", "exec").stdout).toBe(pyro("vm", "exec", "--help").stdout);
  expect(pyro("help", "vm", "exec").stdout).toContain("pyro vm exec -it vm-k3v9x2mq -- bash");
});

test("flags of env build", () => {
  const { stdout } = pyro("env", "build", "--help");
  expect([...stdout.matchAll(/^  ((?:-\w, )?--[a-z-]+)/gm)].map((match) => match[1])).toEqual(["--from", "--script", "--copy", "--vcpu-count", "--mem-mib", "--disk-mib", "--timeout-seconds", "--env", "--user", "--workdir", "--network", "--allow-host", "--deny-host", "--allow-net", "--json", "--quiet", "-h, --help"]);
  expect(pyro("env", "build", "x", "--", "true")).toMatchObject({ status: 125, stderr: expect.stringContaining("It is not said what is built upon.") as string });
  expect(pyro("env", "build", "debian:12", "--from", "debian:12-base", "--", "true")).toMatchObject({ status: 125, stderr: expect.stringContaining("debian:12 is a name of the catalog.") as string });
  expect(pyro("env", "build", "x", "--from", "debian:12")).toMatchObject({ status: 125, stderr: expect.stringContaining("There is nothing to build") as string });
});

test("environments", () => {
  const { environments } = JSON.parse(pyro("env", "list", "--json").stdout) as { environments: Record<string, unknown>[] };
  expect(environments.map((each) => each["name"])).toEqual(["debian:12", "debian:12-base", "debian:12-build"]);
  expect(Object.keys(environments[0]!)).toEqual(["description", "distribution", "installed", "name", "platform", "version"]);
  expect(environments.map((each) => each["installed"])).toEqual([false, false, false]);
});

test("inspect says what is damaged", () => {
  const names = join(home, ".cache/pyro-mcp/environments/names");
  mkdirSync(names, { recursive: true });
  writeFileSync(join(names, "debian%3A12.json"), "{");
  const { status, stdout } = pyro("env", "inspect", "debian:12");
  rmSync(join(home, ".cache"), { recursive: true });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^damage +\S*names\/debian%3A12\.json is not JSON\.$/m);
});

test.each([
  [["run", "debian:12", "--mem-mib", "64", "--", "true"], 125, "mem_mib is 64; it is a whole number from 128 to 65536."],
  [["run", "debian:12", "--vcpu-count", "33", "--", "true"], 125, "vcpu_count is 33; it is a whole number from 1 to 32."],
  [["run", "debian:12", "--timeout-seconds", "0", "--", "true"], 125, "timeout_seconds is 0; it is a whole number from 1 to 86400."],
  [["run", "debian:12", "--ttl-seconds", "604801", "--", "true"], 125, "ttl_seconds is 604801; it is a whole number from 1 to 604800."],
  [["run", "debian:12", "--mem-mib", "many", "--", "true"], 125, "It is a whole number from 128 to 65536."],
  [["run", "debian:12"], 125, "There is no command to run."],
  [["run"], 125, "Missing required argument 'environment'."],
  [["run", "debian:12", "--memory", "5", "--", "true"], 125, "Unknown option '--memory'."],
  [["run", "debian:13", "--", "true"], 125, "debian:13"],
  [["run", "debian:12", "--allow-host", "no host", "--", "true"], 125, 'allow_hosts has "no host"; each is a name'],
  [["run", "debian:12", "--allow-net", "10.0.0.1/8", "--", "true"], 125, 'allow_nets has "10.0.0.1/8"; each is an IPv4 network'],
  [["run", "debian:12", "--deny-host", "example.org", "--", "true"], 125, "Nothing of the network is allowed."],
  [["run", "debian:12", "--publish", "80", "--", "true"], 125, 'publish has "80"; each is [HOST_IP:]HOST_PORT:GUEST_PORT'],
  [["run", "debian:12", "--secret", "TOKEN=hunter2", "--network", "--", "true"], 125, "A secret is NAME@HOST"],
  [["run", "debian:12", "--secret", "TOKEN@api.example.org", "--allow-host", "example.org", "--", "true"], 125, "The secret TOKEN is for api.example.org, which the guest may not reach."],
  [["run", "debian:12", "--allow-host", "example.org", "--allow-host-compat", "--", "true"], 125, "allow_host_compat can't go with a policy"],
  [["vm", "create", "debian:12", "--allow-host", "a/b"], 2, 'allow_hosts has "a/b"'],
  [["run", "-it", "debian:12", "--", "bash"], 125, "Standard input is no terminal, so there is none to give to the command."],
  [["completion", "csh"], 2, "Allowed choices are bash, zsh, fish."],
  [["vm", "exce"], 2, "Unknown command 'exce'."],
  [["help", "vm", "exce"], 2, "Unknown command 'exce'."],
  [["rnu", "debian:12"], 2, "Unknown command 'rnu'."],
  [["env", "lst"], 2, "Unknown command 'lst'."],
  [["demo", "olama"], 2, "Unknown command 'olama'."],
  [["env", "pull"], 2, "Missing required argument 'environment'."],
  [["env", "pull", "debain:12"], 1, "debain:12"],
  [["env", "inspect", "nothing"], 1, "nothing"],
  [["mcp", "instal"], 2, "Unknown command 'instal'."],
  [["mcp", "install"], 2, "Missing required argument 'client'."],
  [["mcp", "install", "cursr"], 1, 'No MCP client called "cursr" is known.'],
  [["mcp", "install", "cursor", "--scope", "local"], 2, "Allowed choices are user, project."],
  [["demo", "ollama", "--modell", "x"], 2, "Unknown option '--modell'."],
  [["doctor", "--jsn"], 2, "Unknown option '--jsn'."],
])("%s: status %i, %s", (args, status, message) => {
  const result = pyro(...args);
  expect(result.status).toBe(status);
  expect(result.stdout).toBe("");
  expect(result.stderr).toContain(message);
  expect(result.stderr).toMatch(/^hint: \S/m);
});

test("the nearest name", () => {
  expect(pyro("rnu").stderr).toContain("Did you mean run?");
  expect(pyro("env", "lst").stderr).toContain("Did you mean list?");
  expect(pyro("demo", "olama").stderr).toContain("Did you mean ollama?");
  expect(pyro("run", "debian:12", "--mem-mb", "5", "--", "true").stderr).toContain("Did you mean --mem-mib?");
  expect(pyro("env", "pull", "debain:12").stderr).toContain("debian:12");
  expect(pyro("vm", "exce").stderr).toBe("error: Unknown command 'exce'.\nhint: Did you mean exec? See `pyro help vm`.\n");
  expect(pyro("vm", "exec", "--usr", "x", "--", "y").stderr).toContain("Did you mean --user? See `pyro help vm exec`.");
});

test("help that nobody asked for is a usage error; a word that is no command is named", () => {
  for (const args of [[], ["env"]]) expect(pyro(...args)).toMatchObject({ status: 2 });
  expect(pyro("env").stderr).toContain("Usage: pyro env");
  expect(pyro("help", "rnu")).toMatchObject({ status: 2, stderr: "error: Unknown command 'rnu'.\nhint: Did you mean run? See `pyro help`.\n" });
  expect(pyro("env", "list", "extra").stderr).not.toContain("Did you mean");
});

test("output that can't be written is not a success", () => {
  const full = (...args: string[]) => spawnSync("sh", ["-c", 'exec "$@" >/dev/full', "sh", process.execPath, main, ...args], { encoding: "utf8", env: { PATH: process.env["PATH"]!, HOME: home } });
  expect(full("env", "list")).toMatchObject({ status: 1 });
  expect(full("env", "list").stderr).toContain("error: Standard output could not be written: ENOSPC");
  const gone = spawnSync("bash", ["-c", 'set -o pipefail; "$@" | true', "sh", process.execPath, main, "run", "--help"], { encoding: "utf8", env: { PATH: process.env["PATH"]!, HOME: home } });
  expect([0, 141]).toContain(gone.status);
  expect(gone.stderr).toBe("");
  const silent = spawnSync("sh", ["-c", 'exec "$@" 2>/dev/full', "sh", process.execPath, main, "run", "debian:99", "--", "true"], { encoding: "utf8", env: { PATH: process.env["PATH"]!, HOME: home } });
  expect(silent.status).toBe(125);
});

test("an error as JSON", () => {
  const { stderr, stdout } = pyro("run", "debian:12", "--json", "--mem-mib", "1", "--", "true");
  expect(stdout).toBe("");
  expect(JSON.parse(stderr)).toEqual({
    error: { code: "INVALID_ARGUMENT", message: "mem_mib is 1; it is a whole number from 128 to 65536.", hint: "Give a mem_mib from 128 to 65536, or leave it out for 1024." },
  });
});

test("bare pyro shows the help", () => {
  const { status, stdout } = pyro();
  expect(status).toBe(2);
  expect(stdout).toContain("Usage: pyro");
});

test("nothing of this left anything in the home directory but an empty cache", () => {
  const names = readdirSync(home, { recursive: true }).map(String).filter((name) => !/^\.cache(\/pyro-mcp(\/(environments|tmp|kernels|locks))?)?$/.test(name));
  expect(names).toEqual([]);
});
