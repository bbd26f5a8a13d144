// What a fork of a frozen VM costs, and what pyro adds to it. Floor: QEMU restored from the same template with the same words, spoken to
// directly in the protocol's bytes: no SDK, no keeper, no checks, and no identity, clock or entropy for the guest. All run /bin/true in debian:12,
// from the start to the VM's end; they take turns, so a busy machine hits all of them.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { openEnvironment } from "../dist/environments/index.js";
import { Pyro } from "../dist/index.js";
import { askTrue } from "./ask-true.mjs";
import { findTemplate, forkBare } from "./bare-qemu.mjs";
import { describeMs, median } from "./statistics.mjs";

const rounds = Number(process.env.ROUNDS ?? 15);
const main = fileURLToPath(new URL("../dist/main.cjs", import.meta.url));
const name = "debian:12";
const memMib = 1024;
const pyro = new Pyro();

await pyro.pullEnvironment(name);
const { accelerator } = JSON.parse(await output(["doctor", "--json"]));
const environment = await openEnvironment(name);
await timeSdk(); // the template is there from here on
const template = findTemplate(environment.digest, memMib);
const times = { floor: [], sdk: [], cli: [], cold: [] };
await timeBare();
for (let round = 0; round < rounds; round++) {
  times.floor.push(await timeBare());
  times.sdk.push(await timeSdk());
  times.cli.push(await timeCli());
  if (round % 3 === 0) times.cold.push(await timeCold());
}
const pairs = (other, of) => median(times[other].map((ms, round) => of(ms, times.floor[round])));
console.log(`accelerator ${accelerator}; ${rounds} rounds, ${times.cold.length} cold boots`);
console.log(`floor, bare QEMU restore to the answer of /bin/true and its end: ${describeMs(times.floor)}`);
console.log(`sdk.runInVm, the same:                                           ${describeMs(times.sdk)}; ratio pair by pair ${pairs("sdk", (ms, bare) => ms / bare).toFixed(2)}; goal: at most 1.2`);
console.log(`pyro run ${name} -- /bin/true, whole process:                ${describeMs(times.cli)}; pair by pair the floor plus ${pairs("cli", (ms, bare) => ms - bare).toFixed(0)} ms; goal: at most plus 120 ms`);
console.log(`sdk.runInVm, cold boot:                                          ${describeMs(times.cold)}; a fork is ${(median(times.cold) / median(times.sdk)).toFixed(1)} times faster; goal: at least 8`);

async function timeSdk() {
  const begin = performance.now();
  const { exitCode } = await pyro.runInVm({ environment: name, command: ["/bin/true"], memMib });
  if (exitCode !== 0) throw new Error(`runInVm: status ${exitCode}`);
  return performance.now() - begin;
}

async function timeCold() {
  process.env.PYRO_TEMPLATE_MAX_AGE_SECONDS = "0";
  try {
    return await timeSdk();
  } finally {
    delete process.env.PYRO_TEMPLATE_MAX_AGE_SECONDS;
  }
}

async function timeCli() {
  const begin = performance.now();
  const child = spawn(process.execPath, [main, "run", name, "--quiet", "--", "/bin/true"], { stdio: ["ignore", "ignore", "inherit"] });
  const status = await new Promise((resolve) => child.once("close", resolve));
  if (status !== 0) throw new Error(`pyro run: status ${status}`);
  return performance.now() - begin;
}

async function output(args) {
  const child = spawn(process.execPath, [main, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk) => (text += chunk));
  await new Promise((resolve) => child.once("close", resolve));
  return text;
}

async function timeBare() {
  const begin = performance.now();
  const vm = forkBare(environment, template, { accelerator, memMib });
  await askTrue(vm.port);
  await vm.end();
  return performance.now() - begin;
}
