// Writes the pages that are made from tables in the code. Needs a build.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./setup.mjs";

const { errorCodes } = await import(join(root, "dist/index.js"));
writeFileSync(join(root, "docs/errors.md"), errorPage(errorCodes));

function errorPage(codes) {
  const rows = Object.entries(codes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`);
  return ["# Error codes", "", "`PyroError.code`, and `error.code` of `--json`. The set is closed. This page is made from `src/base/error.ts` by `npm run docs`.", "", "| code | meaning |", "| --- | --- |", ...rows, ""].join("\n");
}
