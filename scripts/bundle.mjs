// The command line in few files: Node takes longer to find and link seventy modules than to run what a fork needs of them. CommonJS, as Node
// links that in half the time of ES modules. `dist/main.cjs` is the program; what `run` needs at once is in one file, every other command and what
// is loaded late in files of their own. Packages are taken in, with their licences: also those that the SDK depends on, as a server in one file starts sooner.
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, sep } from "node:path";
import { rolldown } from "rolldown";
import { root } from "./setup.mjs";

const dist = join(root, "dist");
const entry = join(dist, "main.js");
const fastest = join(dist, "cli/commands/run.js");

/** Bundles what tsc left in dist/, and removes what nobody needs unbundled. */
export async function bundle() {
  const build = await rolldown({ input: entry, platform: "node", resolve: { mainFields: ["module", "main"] }, external: (id) => id.startsWith("node:") });
  let together;
  const { output } = await build.write({
    dir: dist,
    format: "cjs",
    comments: false,
    entryFileNames: "main.cjs",
    chunkFileNames: "main/[name].cjs",
    codeSplitting: {
      groups: [{ debugName: "start", name: (id, context) => ((together ??= loadedAtOnce(context)).has(id) ? "start" : null) }],
    },
  });
  chmodSync(join(dist, "main.cjs"), 0o755);
  writeFileSync(join(dist, "main/LICENSES"), licences(output.flatMap((each) => each.moduleIds ?? [])));
  await bundleGateway();
  for (const name of ["main.js", "main.d.ts", "gateway.js", "gateway.d.ts", "cli"]) rmSync(join(dist, name), { recursive: true });
}

/** The network gateway: a process of its own for each networked VM, in one file of its own. */
async function bundleGateway() {
  const build = await rolldown({ input: join(dist, "gateway.js"), platform: "node", external: (id) => id.startsWith("node:") });
  await build.write({ file: join(dist, "gateway.cjs"), format: "cjs", comments: false, codeSplitting: false });
}

/** The modules that are evaluated before a `run` begins, but for the entry itself: whatever is shared with it would have to wait for it. */
function loadedAtOnce(context) {
  const seen = new Set([entry, fastest]);
  for (const id of seen) for (const each of context.getModuleInfo(id)?.importedIds ?? []) seen.add(each);
  seen.delete(entry);
  return seen;
}

function licences(modules) {
  const marker = `${sep}node_modules${sep}`;
  const packages = new Set(modules.filter((id) => id.includes(marker)).map((id) => packageOf(id, id.lastIndexOf(marker) + marker.length)));
  return [...packages].toSorted().map((directory) => {
    const { name, version, license } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
    const file = ["LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "license"].map((each) => join(directory, each)).find((each) => existsSync(each));
    if (file === undefined) throw new Error(`${name} is bundled and has no licence file.`);
    return `${name} ${version} (${license})\n\n${readFileSync(file, "utf8").trim()}\n`;
  }).join(`\n${"-".repeat(72)}\n\n`);
}

/** The directory of a package that a module is in; a scope is part of the name. */
function packageOf(id, at) {
  const words = id.slice(at).split(sep);
  return id.slice(0, at) + words.slice(0, words[0].startsWith("@") ? 2 : 1).join(sep);
}
