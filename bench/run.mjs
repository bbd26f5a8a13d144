// Prints every number the documents claim, each beside a floor measured in the same run. Needs a build (`npm run build`).
import { spawnSync } from "node:child_process";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";

const all = ["fork", "fork-load", "cold-start", "image-writer", "mcp"];
const wanted = process.argv.slice(2);
console.log(`${cpus().length} processors, ${cpus()[0].model.trim()}, Node ${process.versions.node}`);
let failed = false;
for (const name of wanted.length === 0 ? all : wanted) {
  console.log(`\n## ${name}`);
  const { status } = spawnSync(process.execPath, [fileURLToPath(new URL(`${name}.mjs`, import.meta.url))], { stdio: "inherit" });
  failed ||= status !== 0;
}
process.exit(failed ? 1 : 0);
