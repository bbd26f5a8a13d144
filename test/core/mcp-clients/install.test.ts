import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { parse as parseToml } from "smol-toml";
import { clientNames } from "../../../src/core/mcp-clients/clients.js";
import { applyChange, configPiece, installedEntries, planInstall, planUninstall } from "../../../src/core/mcp-clients/index.js";

const node = "/opt/node/bin/node";
const root = mkdtempSync(join(tmpdir(), "pyro-mcp-clients-"));
const script = join(root, "bin/pyro");
const older = join(root, "older/pyro");
for (const each of [script, older]) {
  mkdirSync(dirname(each));
  writeFileSync(each, "");
}
afterAll(() => rmSync(root, { recursive: true }));
const kept = { ...process.env };
const changed = ["HOME", "PATH", "TMPDIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME"];
const execPath = process.execPath;
let home: string;
let project: string;

beforeEach(() => {
  home = mkdtempSync(join(root, "home-"));
  project = join(home, "project");
  mkdirSync(project);
  for (const name of changed) delete process.env[name];
  process.env["HOME"] = home;
  process.env["PATH"] = "/nowhere";
  process.env["TMPDIR"] = "/nowhere"; // what is in the directory for temporary files is refused
  process.execPath = node;
});
afterEach(() => {
  for (const name of changed) {
    if (kept[name] === undefined) delete process.env[name];
    else process.env[name] = kept[name];
  }
  process.execPath = execPath;
  rmSync(home, { recursive: true, force: true });
});

const files: Record<string, string> = {
  "claude-code": ".claude.json",
  "claude-desktop": ".config/Claude/claude_desktop_config.json",
  codex: ".codex/config.toml",
  cursor: ".cursor/mcp.json",
  opencode: ".config/opencode/opencode.json",
  vscode: ".config/Code/User/mcp.json",
};
const args = [script, "mcp", "serve"];
const entries: Record<string, unknown> = {
  "claude-code": { mcpServers: { pyro: { type: "stdio", command: node, args } } },
  "claude-desktop": { mcpServers: { pyro: { command: node, args } } },
  codex: { mcp_servers: { pyro: { command: node, args } } },
  cursor: { mcpServers: { pyro: { type: "stdio", command: node, args } } },
  opencode: { mcp: { pyro: { type: "local", command: [node, ...args] } } },
  vscode: { servers: { pyro: { type: "stdio", command: node, args } } },
};

async function install(client: string, more: { scope?: "user" | "project"; name?: string; script?: string } = {}): Promise<string> {
  const { script: started = script, ...target } = more;
  const change = await planInstall({ client, directory: project, ...target }, started);
  await applyChange(change);
  return change.action;
}

async function uninstall(client: string, more: { scope?: "user" | "project"; name?: string } = {}): Promise<string> {
  const change = await planUninstall({ client, directory: project, ...more });
  await applyChange(change);
  return change.action;
}

function write(path: string, text: string): string {
  const file = join(home, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

const read = (path: string) => readFileSync(join(home, path), "utf8");
const parse = (client: string, text: string): unknown => (client === "codex" ? parseToml(text) : JSON.parse(text));

test("every client has a file here", () => {
  expect(Object.keys(files)).toEqual(clientNames);
});

test.each(clientNames)("%s: no file yet; then one with pyro alone, which the user alone can read; then none, nor its directory", async (client) => {
  expect(await install(client)).toBe("add");
  expect(parse(client, read(files[client]!))).toEqual(entries[client]);
  expect(statSync(join(home, files[client]!)).mode & 0o777).toBe(0o600);
  expect(await install(client)).toBe("none");
  expect(await uninstall(client)).toBe("remove");
  expect(readdirSync(home).filter((each) => each !== "project" && each !== ".local")).toEqual([]);
  expect(readdirSync(join(home, ".local/state/pyro-mcp/mcp-installs"))).toEqual([]);
  expect(await uninstall(client)).toBe("none");
});

const json = (container: string, body: string) => body.replaceAll("CONTAINER", container);
const odd: Record<string, string> = {
  "empty object": "{}",
  "blank in the object": "{ }\n",
  "empty lines in the object": "{\n\n}\n",
  "nothing at all": "",
  "a newline": "\n",
  "empty container": '{\n  "CONTAINER": {}\n}\n',
  "empty container with a comment": '{\n  "CONTAINER": {\n    // none yet\n  }\n}\n',
  "other servers": '{\n  "CONTAINER": {\n    "other": { "command": "x", "args": [] }\n  }\n}\n',
  "other keys, before and behind": '{\n\t"theme": "dark",\n\t"CONTAINER": {\n\t\t"other": {\n\t\t\t"command": "x"\n\t\t}\n\t},\n\t"z": [1, 2]\n}',
  "no container": '{\n    "theme": "dark"\n}\n',
  "comments": '// mine\n{\n  /* the servers */\n  "CONTAINER": {\n    // first\n    "other": { "command": "x" } // last\n    // end\n  } // all\n}\n',
  "trailing commas": '{\n  "CONTAINER": {\n    "other": { "command": "x" }, // keep\n  },\n}\n',
  "one line": '{"CONTAINER":{"other":{"command":"x"}},"a":1}',
  "one line with nothing in it": '{"CONTAINER":{}}',
  "one line with a trailing comma": '{"CONTAINER": {"other": {"command": "x"},},}',
  "odd formatting": '{  "a" : 1 ,\n"CONTAINER"\n:\n   { "other"\n : {"command":"x"}\n , "b": {"command": "y"}}}',
  "CRLF": '{\r\n  "CONTAINER": {\r\n    "other": { "command": "x" }\r\n  }\r\n}\r\n',
  "a name in it that looks like syntax": '{\n  "CONTAINER": {\n    "}, {": { "command": "// \\" ,}" }\n  }\n}\n',
};

const jsonClients = [["claude-code", "mcpServers"], ["opencode", "mcp"], ["vscode", "servers"]] as const;
test.each(jsonClients.flatMap(([client, container]) => Object.entries(odd).map(([what, body]) => [client, what, json(container, body)] as const)))("%s with %s: all else stays, and the undo is exact", async (client, _what, text) => {
  const file = write(files[client]!, text);
  expect(await install(client)).toBe("add");
  const changed = readFileSync(file, "utf8");
  // Every character of it is still there, in order.
  let at = 0;
  for (const character of text.replace(/\s/g, "")) {
    at = changed.indexOf(character, at);
    expect(at, `${character} is missing in ${changed}`).toBeGreaterThan(-1);
    at++;
  }
  expect(changed.match(/\r?\n/g)?.every((each) => each === (text.includes("\r\n") ? "\r\n" : "\n")) ?? true).toBe(true);
  for (const comment of text.match(/\/\/ \w+|\/\*.*\*\//g) ?? []) expect(changed).toContain(comment);
  expect(await install(client)).toBe("none");
  // Without the record of it, too, but for an empty container.
  rmSync(join(home, ".local"), { recursive: true });
  const plan = await planUninstall({ client, directory: project });
  if (text.includes('"command"')) expect(plan.after).toBe(text);
  else expect(plan.after!.replace(/\s/g, "")).toMatch(/^\{("theme":"dark",)?"(mcpServers|mcp|servers)":\{(\/\/noneyet)?\}\}$/);
  writeFileSync(file, text);
  expect(await install(client)).toBe("add");
  expect(await uninstall(client)).toBe("remove");
  expect(readFileSync(file, "utf8")).toBe(text);
});

test("how it looks: on a line of its own, indented as its neighbours are", async () => {
  write(".cursor/mcp.json", '{\n\t"mcpServers": {\n\t\t"other": { "command": "x" } // mine\n\t}\n}\n');
  await install("cursor");
  expect(read(".cursor/mcp.json")).toBe(`{
\t"mcpServers": {
\t\t"other": { "command": "x" }, // mine
\t\t"pyro": {
\t\t\t"type": "stdio",
\t\t\t"command": "${node}",
\t\t\t"args": [
\t\t\t\t"${script}",
\t\t\t\t"mcp",
\t\t\t\t"serve"
\t\t\t]
\t\t}
\t}
}
`);
});

const oddToml: Record<string, string> = {
  "other servers": '# mine\nmodel = "o3" # best\n\n[mcp_servers.other]\ncommand = "x"\n\n[mcp_servers.other.env]\nA = "1"\n\n[profiles.a]\nn = 1\n',
  "no newline at the end": '[mcp_servers.other]\ncommand = "x"',
  "CRLF": 'model = "o3"\r\n\r\n[mcp_servers.other]\r\ncommand = "x"\r\n',
  "strings that look like headers": 'a = """\n[mcp_servers.pyro]\ncommand = 1\n"""\nb = [\n  [1],\n  [2],\n]\n',
  "dates and large numbers": "d = 2026-01-01T00:00:00Z\nt = 07:32:00\nbig = 9223372036854775807\nf = 1e3\ninf = inf\n",
  "an empty table": "[mcp_servers]\n",
  "nothing": "",
  "comments only": "# nothing yet\n",
};
test.each(Object.entries(oddToml))("codex with %s: all else stays, and the undo is exact", async (_what, text) => {
  const file = write(".codex/config.toml", text);
  expect(await install("codex")).toBe("add");
  const changed = readFileSync(file, "utf8");
  expect(changed.startsWith(text)).toBe(true);
  if (text.includes("\r\n")) expect(changed.replaceAll("\r\n", "")).not.toContain("\n");
  expect(await install("codex")).toBe("none");
  rmSync(join(home, ".local"), { recursive: true });
  expect((await planUninstall({ client: "codex", directory: project })).after!.trimEnd()).toBe(text.trimEnd());
  writeFileSync(file, text);
  await install("codex");
  expect(await uninstall("codex")).toBe("remove");
  expect(readFileSync(file, "utf8")).toBe(text);
});

test("an older entry is changed where it is; what the user added to it stays; the undo is still exact", async () => {
  const text = '{\n  "mcpServers": {\n    "a": { "command": "x" }\n  }\n}\n';
  const file = write(".claude.json", text);
  await install("claude-code", { script: older });
  expect(await install("claude-code")).toBe("update");
  expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({ mcpServers: { a: { command: "x" }, pyro: { type: "stdio", command: node, args } } });
  await uninstall("claude-code");
  expect(readFileSync(file, "utf8")).toBe(text);

  write(".cursor/mcp.json", '{ "mcpServers": { "pyro": { "command": "/old/bin/pyro", "args": ["mcp", "serve"], "env": {"A": "b"} }, "z": {"command": "y"} } }');
  expect(await install("cursor")).toBe("update");
  expect(read(".cursor/mcp.json")).toBe(`{ "mcpServers": { "pyro": { "command": "${node}", "args": ["${script}","mcp","serve"], "env": {"A": "b"}, "type": "stdio" }, "z": {"command": "y"} } }`);

  write(".codex/config.toml", `[mcp_servers.pyro] # mine\ncommand = "pyro"\nargs = [\n  "mcp",\n  "serve", # yes\n]\ntool_timeout_sec = 900\n\n[mcp_servers.pyro.env]\nA = "b"\n\n# tail\n[x]\n`);
  expect(await install("codex")).toBe("update");
  expect(read(".codex/config.toml")).toBe(`[mcp_servers.pyro] # mine\ncommand = "${node}"\nargs = [ "${script}", "mcp", "serve" ]\ntool_timeout_sec = 900\n\n[mcp_servers.pyro.env]\nA = "b"\n\n# tail\n[x]\n`);
  expect(await uninstall("codex")).toBe("remove");
  expect(read(".codex/config.toml")).toBe("\n# tail\n[x]\n");
});

test("a file that its client has written anew since: ours goes, the rest stays", async () => {
  write(".claude.json", '{\n  "numStartups": 1\n}\n');
  await install("claude-code");
  const config = JSON.parse(read(".claude.json")) as { numStartups: number };
  config.numStartups = 2;
  write(".claude.json", JSON.stringify(config, undefined, 2));
  await uninstall("claude-code");
  expect(JSON.parse(read(".claude.json"))).toEqual({ numStartups: 2 });

  await install("claude-code");
  write(".claude.json", JSON.stringify({ ...JSON.parse(read(".claude.json")) as object, theme: "dark" }));
  await uninstall("claude-code");
  expect(read(".claude.json")).toBe('{"numStartups":2,"mcpServers":{},"theme":"dark"}');

  await install("codex");
  write(".codex/config.toml", `${read(".codex/config.toml")}\n[other]\na = 1\n`);
  await uninstall("codex");
  expect(read(".codex/config.toml")).toBe("\n[other]\na = 1\n");
});

test("OpenCode: version 2's own form, the file with comments, and a server that is called servers", async () => {
  write(".config/opencode/opencode.jsonc", '{\n  "mcp": {\n    "servers": {\n      "a": { "type": "local", "command": ["x"] },\n    },\n  },\n}\n');
  await install("opencode");
  expect(existsSync(join(home, ".config/opencode/opencode.json"))).toBe(false);
  expect((await planInstall({ client: "opencode", directory: project }, script)).action).toBe("none");
  expect(read(".config/opencode/opencode.jsonc")).toMatch(/"command": \["x"\] \},\n {6}"pyro": \{\n {8}"type": "local",/);
  // Another file came to be; the entry is still found.
  write(".config/opencode/opencode.json", '{ "mcp": { "servers": { "type": "local", "command": ["y"] } } }');
  expect(await install("opencode")).toBe("none");
  expect(await install("opencode", { name: "two" })).toBe("add");
  expect(read(".config/opencode/opencode.json")).toBe(`{ "mcp": { "servers": { "type": "local", "command": ["y"] }, "two": {"type":"local","command":["${node}","${script}","mcp","serve"]} } }`);
});

test.each([
  ["claude-code", ".mcp.json", { mcpServers: { pyro: { type: "stdio", command: "pyro", args: ["mcp", "serve"] } } }],
  ["cursor", ".cursor/mcp.json", { mcpServers: { pyro: { type: "stdio", command: "pyro", args: ["mcp", "serve"] } } }],
  ["vscode", ".vscode/mcp.json", { servers: { pyro: { type: "stdio", command: "pyro", args: ["mcp", "serve"] } } }],
  ["opencode", "opencode.json", { mcp: { pyro: { type: "local", command: ["pyro", "mcp", "serve"] } } }],
  ["codex", ".codex/config.toml", { mcp_servers: { pyro: { command: "pyro", args: ["mcp", "serve"] } } }],
])("%s: a project's file has the name that everybody's PATH knows", async (client, file, expected) => {
  expect(await install(client, { scope: "project" })).toBe("add");
  expect(parse(client, readFileSync(join(project, file), "utf8"))).toEqual(expected);
  expect(await uninstall(client, { scope: "project" })).toBe("remove");
  expect(readdirSync(project)).toEqual([]);
});

test("where the clients' own settings put their files", async () => {
  process.env["CLAUDE_CONFIG_DIR"] = join(home, "cc");
  process.env["CODEX_HOME"] = join(home, "cx");
  process.env["XDG_CONFIG_HOME"] = join(home, "xdg");
  for (const client of clientNames) await install(client);
  for (const file of ["cc/.claude.json", "cx/config.toml", "xdg/Claude/claude_desktop_config.json", "xdg/opencode/opencode.json", "xdg/Code/User/mcp.json", ".cursor/mcp.json"]) expect(existsSync(join(home, file)), file).toBe(true);
});

test("a link stays a link, with its target's mode", async () => {
  mkdirSync(join(home, "dotfiles"));
  const target = write("dotfiles/cursor.json", "{}\n");
  chmodSync(target, 0o640);
  mkdirSync(join(home, ".cursor"));
  symlinkSync("../dotfiles/cursor.json", join(home, ".cursor/mcp.json"));
  await install("cursor");
  expect(lstatSync(join(home, ".cursor/mcp.json")).isSymbolicLink()).toBe(true);
  expect(readFileSync(target, "utf8")).toContain("pyro");
  expect(statSync(target).mode & 0o777).toBe(0o640);
  await uninstall("cursor");
  expect(readFileSync(target, "utf8")).toBe("{}\n");
  expect(readdirSync(join(home, "dotfiles"))).toEqual(["cursor.json"]);
});

test("what was made by us and made a link since is no longer ours to remove", async () => {
  await install("cursor");
  const file = join(home, ".cursor/mcp.json");
  const target = write("dotfiles/cursor.json", read(".cursor/mcp.json"));
  rmSync(file);
  symlinkSync(target, file);
  expect(await uninstall("cursor")).toBe("remove");
  expect(lstatSync(file).isSymbolicLink()).toBe(true);
  expect(JSON.parse(readFileSync(target, "utf8"))).toEqual({ mcpServers: {} });
});

test.each([
  ["claude-code", '{ "a": 1', /is not JSON: CloseBraceExpected at line 1, column 9/],
  ["claude-code", "[]", /is JSON, but no object/],
  ["claude-code", '{ "mcpServers": [] }', /"mcpServers" in it is no object/],
  ["vscode", '{ "servers": { "a": {} }, "servers": { "b": {} } }', /can't change safely/],
  ["codex", "[mcp_servers", /is not TOML: .* at line 1, column/],
  ["codex", 'mcp_servers = { other = { command = "x" } }\n', /: it is written in a way that pyro can't change safely/],
  ["codex", 'mcp_servers.pyro = { command = "pyro", args = ["mcp", "serve"] }\n', /\[mcp_servers\.pyro\] in it is written in a way that pyro can't change/],
])("%s: %s is left as it is", async (client, text, message) => {
  const file = write(files[client]!, text);
  await expect(install(client)).rejects.toMatchObject({ code: "UNSUPPORTED", message: expect.stringMatching(message) as string, hint: expect.stringContaining("print-config") as string });
  expect(readFileSync(file, "utf8")).toBe(text);
});

test("a text that is nested deeper than a parser goes is left as it is, and does not keep anybody from asking what is there", async () => {
  write(".cursor/mcp.json", `{ "deep": ${"[".repeat(20_000)}${"]".repeat(20_000)} }`);
  await expect(install("cursor")).rejects.toMatchObject({ code: "UNSUPPORTED", message: expect.stringContaining("it is nested too deeply.") as string });
  expect(await installedEntries(project)).toEqual([]);
});

test("what is no text, read-only, a link to nothing, or no file is left as it is", async () => {
  const file = write(".cursor/mcp.json", "");
  writeFileSync(file, Buffer.from([0x7b, 0xff, 0x7d]));
  await expect(install("cursor")).rejects.toMatchObject({ code: "UNSUPPORTED", message: `${file} is not UTF-8 text; it was left as it is.` });
  writeFileSync(file, "{}");
  chmodSync(file, 0o444);
  await expect(install("cursor")).rejects.toMatchObject({ code: "DENIED", message: `${file} is read-only, so it was left as it is.` });
  expect(readFileSync(file, "utf8")).toBe("{}");
  rmSync(file);
  symlinkSync("nothing", file);
  await expect(install("cursor")).rejects.toMatchObject({ code: "DENIED", message: `${file} is a link to something that is not there.` });
  rmSync(file);
  mkdirSync(file);
  await expect(install("cursor")).rejects.toMatchObject({ code: "DENIED", hint: expect.stringContaining("print-config") as string });
  expect(readdirSync(join(home, ".cursor"))).toEqual(["mcp.json"]);
});

test("a file that somebody else writes between the question and the answer is left as it is", async () => {
  const file = write(".claude.json", "{}");
  const change = await planInstall({ client: "claude-code", directory: project }, script);
  writeFileSync(file, '{ "a": 1 }');
  await expect(applyChange(change)).rejects.toMatchObject({ code: "INVALID_STATE" });
  expect(readFileSync(file, "utf8")).toBe('{ "a": 1 }');
});

test("nor is one that somebody put in place of ours, whatever is remembered of that", async () => {
  write(".cursor/mcp.json", "{}");
  await install("cursor");
  const text = '{ "mcpServers": { "pyro": { "command": "pyro-the-game", "args": ["serve"] } } }';
  const file = write(".cursor/mcp.json", text);
  await expect(install("cursor")).rejects.toMatchObject({ code: "EXISTS", hint: "Give another --name." });
  await expect(uninstall("cursor")).rejects.toMatchObject({ code: "EXISTS" });
  expect(readFileSync(file, "utf8")).toBe(text);
});

test("somebody else's server of that name is neither changed nor removed", async () => {
  const text = '{ "mcpServers": { "pyro": { "command": "pyro-the-game", "args": ["serve"] } } }';
  write(".cursor/mcp.json", text);
  await expect(install("cursor")).rejects.toMatchObject({ code: "EXISTS", hint: "Give another --name." });
  await expect(uninstall("cursor")).rejects.toMatchObject({ code: "EXISTS" });
  expect(read(".cursor/mcp.json")).toBe(text);
  expect(await install("cursor", { name: "vms" })).toBe("add");
  expect(await uninstall("cursor", { name: "vms" })).toBe("remove");
  expect(read(".cursor/mcp.json")).toBe(text);
});

test("unknown clients, scopes that a client lacks, names that not every client takes", async () => {
  await expect(install("cusror")).rejects.toMatchObject({ code: "NOT_FOUND", hint: "Did you mean cursor?" });
  await expect(install("emacs")).rejects.toMatchObject({ code: "NOT_FOUND", hint: expect.stringContaining("Known are claude-code, claude-desktop, codex, cursor, opencode, vscode.") as string });
  await expect(install("claude-desktop", { scope: "project" })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  for (const name of ["", "a b", "a.b", "ä", "x".repeat(65)]) await expect(install("cursor", { name })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

test("a pyro that npx fetched, or that is in a temporary directory, would be gone soon", async () => {
  const passing = write(".npm/_npx/1a2b/node_modules/.bin/pyro", "");
  await expect(install("cursor", { script: passing })).rejects.toMatchObject({ code: "UNSUPPORTED", hint: "npm install --global pyro-mcp, then the same command again" });
});

test("Node by the name in PATH that leads to it, if that is no shell's own", async () => {
  const real = write("homebrew/Cellar/node/22.1.0/bin/node", "");
  process.execPath = real;
  mkdirSync(join(home, "homebrew/bin"));
  symlinkSync(real, join(home, "homebrew/bin/node"));
  process.env["PATH"] = `/nowhere:relative:${join(home, "homebrew/bin")}`;
  const { text } = await configPiece({ client: "claude-desktop", directory: project }, script);
  expect(JSON.parse(text)).toEqual({ mcpServers: { pyro: { command: join(home, "homebrew/bin/node"), args } } });
  process.env["TMPDIR"] = home;
  await expect(configPiece({ client: "claude-desktop", directory: project }, join(home, "homebrew/bin/node"))).rejects.toMatchObject({ code: "UNSUPPORTED" });
});

test("which clients have pyro, and what is not there any more", async () => {
  write(".claude.json", '{ "mcpServers": { "other": { "command": "x" }, "url": { "url": "http://x" } } }');
  write(".codex/config.toml", "broken [");
  expect(await installedEntries(project)).toEqual([]);
  process.execPath = execPath;
  await install("claude-code");
  await install("vscode", { scope: "project" });
  write(".cursor/mcp.json", JSON.stringify({ mcpServers: { vms: { command: execPath, args: ["/gone/pyro", "mcp", "serve"] } } }));
  write(".config/opencode/opencode.json", JSON.stringify({ mcp: { pyro: { type: "local", command: ["/gone/node", "/gone/pyro", "mcp", "serve"] } } }));
  expect((await installedEntries(project)).map(({ client, scope, name, problem }) => [client, scope, name, problem])).toEqual([
    ["claude-code", "user", "pyro", undefined],
    ["cursor", "user", "vms", "/gone/pyro is not there any more"],
    ["opencode", "user", "pyro", "/gone/node is not there any more"],
    ["vscode", "project", "pyro", "pyro is not in PATH"],
  ]);
});
