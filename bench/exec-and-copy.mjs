// Many short commands on one VM, and trees into it and out of it. Floors: the same commands spoken to a guest by hand (bare QEMU, forked from the same template);
// the same trees through `tar` in the guest, over a command's pipes (`tar -c | pyro vm exec … tar -x`, without the processes: through the core's exec). They take
// turns, so a busy machine hits both. Commands by COMMANDS, megabytes (10^6) of the tree by MB, pairs by PAIRS.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { copyIn, copyOut } from "../dist/core/copy/copy.js";
import { execInVm } from "../dist/core/exec.js";
import { startVm } from "../dist/core/start.js";
import { openEnvironment } from "../dist/environments/index.js";
import { exec, sync } from "./ask-true.mjs";
import { findTemplate, forkBare } from "./bare-qemu.mjs";
import { median } from "./statistics.mjs";

const commands = Number(process.env.COMMANDS ?? 1000);
const megabytes = Number(process.env.MB ?? 60);
const pairs = Number(process.env.PAIRS ?? 5);
const name = "debian:12";
const memMib = 1024;

const vm = await startVm({ environment: name, vcpuCount: 1, memMib, ttlSeconds: 900 });
const environment = await openEnvironment(name);
const bare = forkBare(environment, findTemplate(environment.digest, memMib), { accelerator: vm.accelerator, memMib });
const directory = mkdtempSync(join(tmpdir(), "pyro-bench-copy-"));
try {
  await oneAfterAnother();
  await trees();
} finally {
  await bare.end();
  await vm.end();
  rmSync(directory, { recursive: true, force: true });
}

async function oneAfterAnother() {
  const byHand = speak(bare.port);
  const times = { floor: [], core: [] };
  for (let n = 0; n < commands; n++) {
    for (const [whose, turn] of [["floor", () => byHand.run(["/bin/true"])], ["core", () => execInVm(vm, name, { command: ["/bin/true"], timeoutSeconds: 60, captureBytes: 1024 })]]) {
      const begin = performance.now();
      await turn();
      times[whose].push(performance.now() - begin);
    }
  }
  const of = (list, part) => list.toSorted((a, b) => a - b)[Math.floor(list.length * part)].toFixed(1);
  const seconds = (list) => (list.reduce((sum, each) => sum + each, 0) / 1000).toFixed(1);
  console.log(`${commands} times /bin/true on one VM, in turns: by hand p50 ${of(times.floor, 0.5)} ms, p99 ${of(times.floor, 0.99)} ms, ${seconds(times.floor)} s in all; core p50 ${of(times.core, 0.5)} ms, p99 ${of(times.core, 0.99)} ms, ${seconds(times.core)} s; ratio of the sums ${(seconds(times.core) / seconds(times.floor)).toFixed(2)}`);
}

async function trees() {
  const tree = join(directory, "tree");
  mkdirSync(tree);
  for (let n = 0; n < 400; n++) writeFileSync(join(tree, `small-${n}`), randomBytes(5000));
  writeFileSync(join(tree, "large"), randomBytes(megabytes * 1e6 - 400 * 5000));
  const rates = { tarIn: [], copyIn: [], tarOut: [], copyOut: [] };
  for (let pair = 0; pair < pairs; pair++) {
    await timed(rates.tarIn, () => tarIn(tree, `/root/t${pair}`));
    await timed(rates.copyIn, () => copyIn(vm, tree, `/root/c${pair}`));
    await timed(rates.tarOut, () => tarOut(`/root/t${pair}`, join(directory, "t")));
    await timed(rates.copyOut, () => copyOut(vm, `/root/c${pair}`, join(directory, "c")));
    await execInVm(vm, name, { command: "rm -rf /root/t* /root/c*", timeoutSeconds: 60, captureBytes: 1024 });
    for (const each of ["t", "c"]) rmSync(join(directory, each), { recursive: true });
  }
  const show = (list) => `${median(list).toFixed(0)} MB/s (${Math.min(...list).toFixed(0)} to ${Math.max(...list).toFixed(0)})`;
  for (const [way, floor, ours] of [["in", rates.tarIn, rates.copyIn], ["out", rates.tarOut, rates.copyOut]]) {
    console.log(`a tree of 401 files and ${megabytes} MB ${way}, ${pairs} pairs: tar over a pipe ${show(floor)}, copy ${show(ours)}; ratio pair by pair ${median(ours.map((rate, pair) => rate / floor[pair])).toFixed(2)}`);
  }
}

async function timed(rates, work) {
  const begin = performance.now();
  await work();
  rates.push((megabytes * 1000) / (performance.now() - begin));
}

async function tarIn(from, to) {
  const tar = spawn("tar", ["-C", from, "-c", "."], { stdio: ["ignore", "pipe", "inherit"] });
  const { exitCode } = await execInVm(vm, name, { command: ["sh", "-c", `mkdir ${to} && tar -x -C ${to}`], stdin: tar.stdout, timeoutSeconds: 120, captureBytes: 1024 });
  if (exitCode !== 0) throw new Error(`tar in: status ${exitCode}`);
}

async function tarOut(from, to) {
  mkdirSync(to);
  const tar = spawn("tar", ["-C", to, "-x"], { stdio: ["pipe", "ignore", "inherit"] });
  const { exitCode } = await execInVm(vm, name, { command: ["tar", "-C", from, "-c", "."], stdout: tar.stdin, timeoutSeconds: 120, captureBytes: 1024 });
  tar.stdin.end();
  const [status] = await once(tar, "close");
  if (exitCode !== 0 || status !== 0) throw new Error(`tar out: status ${exitCode}, ${status}`);
}

/** One command after the other on a port, by hand. */
function speak(port) {
  let stream = 0;
  let bytes = Buffer.alloc(0);
  let onResult = () => {};
  port.on("data", (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
    while (bytes.length >= 8) {
      const length = bytes.readUInt32LE(0) >>> 8;
      if (bytes.length < 8 + length) return;
      if (bytes[0] === 0x84) throw new Error(`the guest complains: ${bytes.subarray(8, 8 + length)}`);
      if (bytes[0] === 0x83) onResult();
      bytes = bytes.subarray(8 + length);
    }
  });
  port.write(sync());
  return {
    run: (words) => {
      port.write(exec(++stream, words));
      return new Promise((resolve) => (onResult = resolve));
    },
  };
}
