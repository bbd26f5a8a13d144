// Everything that has to hold: types, lint, the package as npm would ship it, unit, contract, KVM and VM tests. Ends with one line that counts.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, say, setUp } from "./setup.mjs";

setUp({ tests: true });
const scratch = mkdtempSync(join(tmpdir(), "pyro-test-"));
let passed = 0;
let failed = 0;

step("types", "node_modules/.bin/tsc", ["--noEmit", "-p", "tsconfig.json"]);
step("lint", "node_modules/.bin/oxlint", ["--deny-warnings", "src", "test", "bench", "scripts"]);
step("package", process.execPath, ["scripts/check-package.mjs"]);
step("supply", process.execPath, ["scripts/supply.mjs"]);
step("generated pages", process.execPath, ["scripts/docs.mjs", "--check"]);
// An emulated machine with KVM inside keeps one processor busy, and those tests mostly wait: together they take the time of either.
const kvm = startVitest("kvm", join(scratch, "kvm.log"));
for (const project of ["unit", "contract"]) await vitest(project);
await endVitest(kvm);
await vitest("vm");
unittest("clients/python");

rmSync(scratch, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

function step(name, command, args) {
  say(name);
  const ok = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] }).status === 0;
  if (ok) passed++;
  else failed++;
}

async function vitest(project) {
  await endVitest(startVitest(project));
}

/** With a `log` it says nothing before it ends. */
function startVitest(project, log) {
  if (log === undefined) say(`${project} tests`);
  const out = log === undefined ? "inherit" : openSync(log, "w");
  const report = join(scratch, `${project}.json`);
  const child = spawn("node_modules/.bin/vitest", ["run", "--project", project, "--reporter=default", "--reporter=json", `--outputFile.json=${report}`], { cwd: root, stdio: ["ignore", out, out] });
  return { project, log, report, ended: once(child, "close") };
}

async function endVitest({ project, log, report, ended }) {
  const [status] = await ended;
  if (log !== undefined) {
    say(`${project} tests`);
    process.stdout.write(readFileSync(log));
  }
  try {
    const { numPassedTests, numFailedTests, numPendingTests } = JSON.parse(readFileSync(report, "utf8"));
    passed += numPassedTests;
    // A suite that fails outside of its tests, or a left-over handle, shows in the status alone.
    failed += status !== 0 && numFailedTests === 0 ? 1 : numFailedTests;
    if (numPendingTests > 0) say(`${numPendingTests} skipped in ${project}, each with its reason above`);
  } catch {
    failed++;
  }
}

/** The standard library's own runner; its last lines are the count. Those that need VMs are run by `vm`. */
function unittest(directory) {
  say(`${directory} tests`);
  const { status, stderr } = spawnSync("python3", ["-W", "error", "-m", "unittest", "discover", "-t", ".", "-s", "tests"], {
    cwd: join(root, directory),
    env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1" },
    stdio: ["ignore", "inherit", "pipe"],
    encoding: "utf8",
  });
  process.stderr.write(stderr);
  const count = (pattern) => Number(pattern.exec(stderr)?.[1] ?? 0);
  const ran = count(/^Ran ([0-9]+) tests? in /m);
  const wrong = count(/^FAILED \(.*failures=([0-9]+)/m) + count(/^FAILED \(.*errors=([0-9]+)/m);
  passed += Math.max(0, ran - wrong);
  failed += status !== 0 && wrong === 0 ? 1 : wrong;
}
