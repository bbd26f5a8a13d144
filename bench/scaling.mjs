// How the figures grow with the number of VMs that are held and with the memory of a guest. Prints tables and JSON, and draws docs/plots/.
// Usage: node bench/scaling.mjs [held|memory]
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execInVm } from "../dist/core/exec.js";
import { startVm } from "../dist/core/start.js";
import { openEnvironment } from "../dist/environments/index.js";
import { Pyro } from "../dist/index.js";
import { findTemplate } from "./bare-qemu.mjs";
import { plot } from "./plot.mjs";
import { pssMb } from "./pss.mjs";
import { median } from "./statistics.mjs";

const name = "debian:12";
const plots = fileURLToPath(new URL("../docs/plots/", import.meta.url));
const pyro = new Pyro();
const sized = (memMib) => ({ environment: name, vcpuCount: 1, memMib, ttlSeconds: 600 });
/** How often a time is measured at each point. The least is shown: it is what the work takes, whatever else the machine does. */
const times = 5;

const parts = {
  held: {
    points: [1, 2, 5, 10, 20, 50, 100],
    label: "VMs held (1 GiB each)",
    measure: whileHeld,
    drawings: {
      "held-start": ["One more VM, from its start to the answer of /bin/true", "milliseconds", ["startMs"]],
      "held-memory": ["Memory of a VM", "MB (PSS of QEMU)", ["idleMb", "usedMb"]],
      "held-exec": ["/bin/true in a warm VM: what pyro adds", "milliseconds", ["execMs"]],
      "held-end": ["Ending all of them", "milliseconds", ["endMs"]],
    },
  },
  memory: {
    points: [256, 512, 1024, 2048, 4096, 8192],
    label: "guest memory (MiB)",
    measure: withMemory,
    drawings: {
      "memory-start": ["From the start to the answer of /bin/true, and the making of a template", "milliseconds", ["forkMs", "bootMs", "makeMs"]],
      "memory-size": ["Memory of a fork, and its template on disk", "MB", ["idleMb", "templateMb"]],
    },
  },
};
const names = {
  startMs: "one more VM",
  idleMb: "idle",
  usedMb: "after /bin/true",
  execMs: "added, p50",
  endMs: "ending all",
  forkMs: "fork",
  bootMs: "cold boot",
  makeMs: "making the template",
  templateMb: "template on disk",
};

mkdirSync(plots, { recursive: true });
for (const part of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(parts)) {
  const { points, label, measure, drawings } = parts[part];
  const rows = (await measure(points)).map((row, index) => ({ [part]: points[index], ...row }));
  const columns = Object.keys(rows[0]);
  console.log(`| ${label} | ${columns.slice(1).map((column) => `${names[column]}, ${column.slice(-2) === "Mb" ? "MB" : "ms"}`).join(" | ")} |\n|${" --- |".repeat(columns.length)}`);
  for (const row of rows) console.log(`| ${columns.map((column) => row[column].toLocaleString("en", { maximumFractionDigits: row[column] < 10 || column.endsWith("Mb") ? 1 : 0 })).join(" | ")} |`);
  console.log(JSON.stringify(rows));
  for (const [file, [title, y, shown]] of Object.entries(drawings)) {
    const series = shown.map((column) => ({ name: names[column], points: rows.map((row) => [row[part], row[column]]) }));
    writeFileSync(join(plots, `${file}.svg`), plot({ title, x: label, y, series }));
  }
}

async function whileHeld(counts) {
  await pyro.warmEnvironment({ environment: name });
  const rows = [];
  for (const count of counts) rows.push(await withHeld(count));
  return rows;
}

async function withHeld(count) {
  const vms = [];
  try {
    for (let n = 0; n < count; n += 4) vms.push(...(await Promise.all(Array.from({ length: Math.min(4, count - n) }, () => startVm(sized(1024))))));
    const idleMb = median(vms.map(pssMb));
    const starts = [];
    for (let n = 0; n < times; n++) starts.push(await firstAnswer(sized(1024)));
    for (const vm of vms) await answer(vm);
    const usedMb = median(vms.map(pssMb));
    const execMs = await warmExecMs(vms[0]);
    const begin = performance.now();
    await Promise.all(vms.splice(0).map((vm) => vm.end()));
    return { startMs: Math.min(...starts), idleMb, usedMb, execMs, endMs: performance.now() - begin };
  } finally {
    await Promise.all(vms.map((vm) => vm.end()));
  }
}

/** In turns, so that a busy machine hits all sizes. */
async function withMemory(sizes) {
  const { digest } = await openEnvironment(name);
  const rows = sizes.map(() => ({ forkMs: Infinity, bootMs: Infinity, makeMs: Infinity }));
  const least = async (row, column, measured) => (row[column] = Math.min(row[column], await measured));
  for (let n = 0; n < times; n++) {
    for (const [index, memMib] of sizes.entries()) {
      const row = rows[index];
      if (n < 2) await least(row, "makeMs", makeTemplate(memMib));
      await least(row, "forkMs", firstAnswer(sized(memMib)));
      if (n < 3) await least(row, "bootMs", firstAnswer(sized(memMib), { cold: true }));
    }
  }
  for (const [index, memMib] of sizes.entries()) {
    const vm = await startVm(sized(memMib));
    rows[index].idleMb = pssMb(vm);
    await vm.end();
    const template = findTemplate(digest, memMib);
    rows[index].templateMb = (readdirSync(template).reduce((sum, file) => sum + statSync(join(template, file)).blocks, 0) * 512) / 1e6;
  }
  return rows;
}

/** Anew, whether there is one or not: all that are there are a second old. */
async function makeTemplate(memMib) {
  await new Promise((resolve) => setTimeout(resolve, 1100));
  process.env.PYRO_TEMPLATE_MAX_AGE_SECONDS = "1";
  try {
    const begin = performance.now();
    const { made } = await pyro.warmEnvironment({ environment: name, memMib });
    if (!made) throw new Error("the template was not made anew");
    return performance.now() - begin;
  } finally {
    delete process.env.PYRO_TEMPLATE_MAX_AGE_SECONDS;
  }
}

async function firstAnswer(size, options) {
  const begin = performance.now();
  const vm = await startVm(size, options);
  await answer(vm);
  const ms = performance.now() - begin;
  await vm.end();
  return ms;
}

async function answer(vm) {
  const { exitCode } = await execInVm(vm, name, { command: ["/bin/true"], timeoutSeconds: 120, captureBytes: 1024 });
  if (exitCode !== 0) throw new Error(`/bin/true: status ${exitCode}`);
}

/** The median of 60, after 20 that don't count. */
async function warmExecMs(vm) {
  const added = [];
  for (let n = 0; n < 80; n++) {
    const begin = performance.now();
    const guest = vm.channel.exec({ argv: ["/bin/true"], stdin: false });
    guest.stdout.resume();
    guest.stderr.resume();
    const { durationMs } = await guest.result;
    if (n >= 20) added.push(performance.now() - begin - durationMs);
  }
  return median(added);
}
