// Prepares what all VM tests share: a home of their own with the curated environments in it, made for real, once.
// PYRO_TEST_CACHE names a directory to keep between runs while working on the code; without it everything is made anew and removed.
import { mkdtempSync, mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openForMinutes } from "./network-minutes.js";
import { eventually, leftovers, pyro } from "./pyro.js";

export default async (): Promise<() => Promise<void>> => {
  const endHome = await prepareHome(["debian:12", "debian:12-base", "debian:12-build"]);
  const endMinutes = isAskedFor("network-minutes") ? openForMinutes() : async () => {};
  return async () => {
    await endMinutes().finally(endHome);
  };
};

/** Of the test files: unless others are named. */
function isAskedFor(file: string): boolean {
  const named = process.argv.filter((word) => word.endsWith(".test.ts"));
  return named.length === 0 || named.some((word) => word.includes(file));
}

export async function prepareHome(environments: readonly string[]): Promise<() => Promise<void>> {
  const kept = process.env["PYRO_TEST_CACHE"];
  const home = kept ?? mkdtempSync(join(tmpdir(), "pyro-vm-tests-"));
  mkdirSync(home, { recursive: true });
  process.env["HOME"] = home;
  for (const name of ["XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "PYRO_ACCELERATOR", "PYRO_KERNEL_DIR"]) delete process.env[name];
  process.env["PYRO_CATALOG_FROM"] = "archive"; // what it is made from is decided here, not by the network
  const begin = Date.now();
  // Side by side, as they are made by programs of one thread.
  await Promise.all(environments.map(async (environment) => {
    const result = await pyro(["env", "pull", environment], { timeoutMs: 900_000 });
    if (result.status !== 0) throw new Error(`env pull ${environment}: status ${result.status}\n${result.stderr}`);
  }));
  console.log(`[vm tests] the environments are there after ${Math.round((Date.now() - begin) / 1000)} s`);
  return async () => {
    await eventually(() => leftovers(home).length === 0); // the last one's keeper is still at it for a moment
    const left = leftovers(home);
    if (kept === undefined) rmSync(home, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`the tests left something behind:\n${left.join("\n")}`);
  };
}
