// Writes the pages that are made from the code: error codes, the SDK's reference. With --check, writes nothing and fails where a page is not what it would be. Needs a build.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { apiPages } from "./api-docs.mjs";
import { root } from "./setup.mjs";

const { errorCodes } = await import(join(root, "dist/index.js"));
const pages = new Map([["docs/errors.md", errorPage(errorCodes)], ...[...apiPages()].map(([name, content]) => [`docs/api/${name}`, content])]);
const stale = existsSync(join(root, "docs/api")) ? readdirSync(join(root, "docs/api")).map((name) => `docs/api/${name}`).filter((path) => !pages.has(path)) : [];
const other = [...pages].filter(([path, content]) => !existsSync(join(root, path)) || readFileSync(join(root, path), "utf8") !== content).map(([path]) => path);

if (process.argv.includes("--check")) {
  if (stale.length + other.length === 0) process.exit(0);
  console.error(`These pages are not what the code makes of them: ${[...other, ...stale].join(", ")}. Run: npm run docs`);
  process.exit(1);
}
for (const path of stale) rmSync(join(root, path));
for (const path of other) {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), pages.get(path));
}

function errorPage(codes) {
  const rows = Object.entries(codes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`);
  return ["# Error codes", "", "`PyroError.code`, and `error.code` of `--json`. The set is closed. This page is made from `src/base/error.ts` by `npm run docs`.", "", "| code | meaning |", "| --- | --- |", ...rows, ""].join("\n");
}
