import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { expect, test } from "vitest";

// The layers of ARCHITECTURE.md. Imports point down; ports and faces know nothing of each other.
const mayImport: Record<string, readonly string[]> = {
  "main.ts": ["cli", "mcp"],
  "index.ts": ["sdk", "mcp", "core", "base"],
  "gateway.ts": ["net", "core", "base"], // of core the policy alone, as its process is to start soon and stay small
  cli: ["core", "base"],
  mcp: ["core", "base"],
  sdk: ["core", "base", "mcp"], // for `createServer` alone, which is loaded when it is called
  core: ["environments", "vmm", "channel", "net", "base"],
  environments: ["base"],
  vmm: ["base"],
  channel: ["base"],
  net: ["base"],
  base: [],
};

// What only one file may do.
const homes: readonly { what: RegExp; home: string | readonly string[] }[] = [
  { what: /["']node:child_process["']/, home: "base/child.ts" },
  { what: /\bprocess\.env\b/, home: "base/settings.ts" },
  { what: /\bprocess\.exit\b/, home: ["main.ts", "gateway.ts"] },
  { what: /\bprocess\.(stdout|stderr)\b|\bconsole\.\w+\(/, home: "cli/render.ts" },
  { what: /\bmkdir\([^\n]*\brecursive\b/, home: "base/directory.ts" }, // Node's never ends in /proc
];

const source = new URL("../src", import.meta.url).pathname;

test("imports point down, and into another folder only through its index", () => {
  expect(sourceFiles().flatMap((file) => breaches(file, readFileSync(join(source, file), "utf8")))).toEqual([]);
});

test("child processes, environment variables, the end of the process and the terminal have one home each", () => {
  const strays = sourceFiles().flatMap((file) =>
    homes.filter(({ what, home }) => ![home].flat().includes(file) && what.test(withoutComments(readFileSync(join(source, file), "utf8")))).map(({ home }) => `${file} does what belongs to ${String(home)}`),
  );
  expect(strays).toEqual([]);
});

test("a breach is seen", () => {
  expect(breaches("vmm/x.ts", 'import { a } from "../channel/index.js";')).toEqual(["vmm/x.ts imports channel/index.ts: vmm may not import channel"]);
  expect(breaches("core/x.ts", 'const a = await import("../vmm/qmp.js");')).toEqual(["core/x.ts imports vmm/qmp.ts: only vmm/index.ts may be imported"]);
  expect(breaches("base/x.ts", 'export * from "../core/index.js";')).toEqual(["base/x.ts imports core/index.ts: base may not import core"]);
  expect(breaches("cli/commands/x.ts", 'import { b } from "../../base/error.js";')).toEqual([]);
});

function breaches(file: string, text: string): string[] {
  const from = folderOf(file);
  const found: string[] = [];
  for (const [, specifier] of text.matchAll(/(?:from|import)\s*\(?\s*["'](\.[^"']+)["']/g)) {
    const target = normalize(join(dirname(file), specifier!)).replace(/\.js$/, ".ts");
    const to = folderOf(target);
    if (from === to) continue;
    if (!mayImport[from]?.includes(to)) found.push(`${file} imports ${target}: ${from} may not import ${to}`);
    else if (from === "gateway.ts" && to === "core" && target === "core/policy/index.ts") continue;
    else if (to !== "base" && target !== `${to}/index.ts`) found.push(`${file} imports ${target}: only ${to}/index.ts may be imported`);
  }
  return found;
}

function folderOf(file: string): string {
  return file.split("/")[0]!;
}

function sourceFiles(): string[] {
  return readdirSync(source, { recursive: true, withFileTypes: true })
    .filter((each) => each.isFile() && each.name.endsWith(".ts"))
    .map((each) => relative(source, join(each.parentPath, each.name)));
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "");
}
