// The SDK's reference, made from the types that users get: one page a class, one for the shapes. Needs a build.
import { Extractor, ExtractorConfig, ExtractorLogLevel } from "@microsoft/api-extractor";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./setup.mjs";

/** File name to content. Throws where a public type names one that is not exported: users could not write it down. */
export function apiPages() {
  const members = readModel();
  const classes = members.filter((each) => each.kind === "Class");
  const shapes = members.filter((each) => each.kind !== "Class");
  const pages = new Map([
    ["README.md", page("The SDK", ['`import { Pyro } from "pyro-mcp"`. These pages are made from the types by `npm run docs`.', "", ...classes.map((each) => `- [${each.name}](${each.name}.md): ${firstSentence(each)}`), `- [shapes](shapes.md): what goes in and comes out`])],
    ["shapes.md", page("Shapes", shapes.flatMap(shape))],
  ]);
  for (const each of classes) pages.set(`${each.name}.md`, page(each.name, [comment(each), "", ...each.members.flatMap(member)]));
  return pages;
}

function readModel() {
  const directory = mkdtempSync(join(tmpdir(), "pyro-api-"));
  try {
    const config = ExtractorConfig.prepare({
      configObject: {
        projectFolder: root,
        mainEntryPointFilePath: join(root, "dist/index.d.ts"),
        compiler: {
          overrideTsconfig: {
            compilerOptions: { target: "es2022", module: "nodenext", moduleResolution: "nodenext", lib: ["es2023", "esnext.disposable"], types: ["node"], typeRoots: [join(root, "node_modules/@types")], skipLibCheck: true, strict: true },
            files: [join(root, "dist/index.d.ts")],
          },
        },
        apiReport: { enabled: false },
        docModel: { enabled: true, apiJsonFilePath: join(directory, "model.json") },
        dtsRollup: { enabled: false },
        tsdocMetadata: { enabled: false },
        messages: {
          extractorMessageReporting: { default: { logLevel: ExtractorLogLevel.None }, "ae-forgotten-export": { logLevel: ExtractorLogLevel.Error } },
          tsdocMessageReporting: { default: { logLevel: ExtractorLogLevel.None } },
        },
      },
      configObjectFullPath: undefined,
      packageJsonFullPath: join(root, "package.json"),
    });
    const complaints = [];
    const { succeeded } = Extractor.invoke(config, {
      localBuild: true,
      messageCallback: (message) => {
        if (message.logLevel === ExtractorLogLevel.Error) complaints.push(message.text);
        message.handled = true;
      },
    });
    if (!succeeded) throw new Error(complaints.join("\n"));
    return JSON.parse(readFileSync(join(directory, "model.json"), "utf8")).members[0].members;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function page(title, lines) {
  return `${[`# ${title}`, "", ...lines].join("\n").replace(/\n{3,}/g, "\n\n").trimEnd()}\n`;
}

function member(each) {
  return [`## ${each.kind === "Constructor" ? "constructor" : each.name}`, "", "```ts", signature(each), "```", "", comment(each), ""];
}

function shape(each) {
  const head = [`## ${each.name}`, "", comment(each), ""];
  if (each.kind !== "Interface") return [...head, "```ts", signature(each), "```", ""];
  const base = each.extendsTokenRanges.map(({ startIndex, endIndex }) => text(each.excerptTokens.slice(startIndex, endIndex)).trim());
  const rows = each.members.map((field) => `| \`${signature(field).replace(/^readonly /, "").replace(/;$/, "").replaceAll("|", "\\|")}\` | ${comment(field).replaceAll("\n", " ").replaceAll("|", "\\|")} |`);
  return [...head, ...(base.length > 0 ? [`Also what ${base.map((name) => `\`${name}\``).join(", ")} has.`, ""] : []), "| field | |", "| --- | --- |", ...rows, ""];
}

function signature({ excerptTokens }) {
  return text(excerptTokens).replace(/^export (declare )?/, "").replace(/\s*\n\s*/g, " ");
}

function text(tokens) {
  return tokens.map((token) => token.text).join("");
}

/** Without its frame; lines that only break for width are joined. */
function comment({ docComment = "" }) {
  return docComment.replace(/^\/\*\*|\*\/\s*$/g, "").replace(/^\s*\* ?/gm, "").trim().replace(/([^\n])\n(?!\n)/g, "$1 ");
}

function firstSentence(each) {
  return /^.*?[.](?= |$)/s.exec(comment(each))?.[0] ?? comment(each);
}
