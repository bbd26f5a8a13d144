/** The document that teaches an agent to work with VMs, served as a skill (MCP's Skills extension, SEP-2640) and by its place in docs/. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { McpServer } from "@modelcontextprotocol/server";
import { skillEntry, SkillsExtension } from "@modelcontextprotocol/server/ext/skills";
import { packageRoot } from "../base/paths.js";

const name = "pyro-vms";
const uri = `skill://${name}/SKILL.md`;
const mimeType = "text/markdown";

const read = () => readFile(join(packageRoot, "docs/skills", name, "SKILL.md"), "utf8");
const entry = async () => skillEntry(name, { "SKILL.md": await read() });

const extension = new SkillsExtension({
  source: {
    list: async () => ({ skills: [await entry()] }),
    get: async (asked) => (asked === uri ? entry() : undefined),
    read: async (asked) => (asked === uri ? { text: await read(), mimeType } : undefined),
    listResources: async () => [{ uri, name, title: "Working with pyro's VMs", description: "How to run commands in VMs: which tool when, files in and out, what to do when it fails.", mimeType }],
  },
});

export function serveSkill(server: McpServer): void {
  extension.attach(server);
}
