// What a warm VM adds to a command's own time; many forks: memory of each, and all at once. Numbers of VMs by VMS and BURST.
import { execInVm } from "../dist/core/exec.js";
import { startVm } from "../dist/core/start.js";
import { Pyro } from "../dist/index.js";
import { rollupOf } from "./pss.mjs";
import { median } from "./statistics.mjs";

const name = "debian:12";
const held = Number(process.env.VMS ?? 50);
const burst = Number(process.env.BURST ?? 32);
const size = { environment: name, vcpuCount: 1, memMib: 1024, ttlSeconds: 600 };
const pyro = new Pyro();
await pyro.warmEnvironment({ environment: name });

await warmExec(); // first: hundreds of VMs leave the host work to do for a while
await memory();
await givenBack();
await atOnce();

async function memory() {
  const vms = [];
  try {
    const begin = performance.now();
    for (let n = 0; n < held; n += 4) vms.push(...(await Promise.all(Array.from({ length: Math.min(4, held - n) }, () => startVm(size)))));
    console.log(`${held} forks of 1 GiB held at once, started four at a time: ${((performance.now() - begin) / 1000).toFixed(1)} s`);
    report("idle, PSS of each", vms, 28);
    for (let n = 0; n < held; n += 4) await Promise.all(vms.slice(n, n + 4).map((vm) => exec(vm, ["/bin/true"])));
    report("after /bin/true, PSS of each", vms, 42);
  } finally {
    await Promise.all(vms.map((vm) => vm.end()));
  }
}

async function givenBack() {
  const vm = await startVm(size);
  try {
    await exec(vm, ["/bin/true"]);
    const before = rollupOf(vm).Pss / 1000;
    await exec(vm, ["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1"]);
    const peak = rollupOf(vm).Pss / 1000;
    await new Promise((resolve) => setTimeout(resolve, 30_000));
    console.log(`a command that had 400 MiB, PSS: ${before.toFixed(0)} MB before it, ${peak.toFixed(0)} MB when it ended, ${(rollupOf(vm).Pss / 1000).toFixed(0)} MB 30 s later`);
  } finally {
    await vm.end();
  }
}

function report(what, vms, goalMb) {
  const rolls = vms.map(rollupOf);
  const mb = (key) => rolls.map((roll) => roll[key] / 1000);
  const pss = mb("Pss");
  console.log(`${what}: median ${median(pss).toFixed(1)} MB, most ${Math.max(...pss).toFixed(1)} MB; goal: at most ${goalMb} MB (private ${(median(mb("Private_Dirty")) + median(mb("Private_Clean"))).toFixed(1)}, share of what is shared ${(median(pss) - median(mb("Private_Dirty")) - median(mb("Private_Clean"))).toFixed(1)})`);
}

async function atOnce() {
  const begin = performance.now();
  const results = await Promise.allSettled(Array.from({ length: burst }, () => pyro.runInVm({ environment: name, command: ["/bin/true"], timeoutSeconds: 120 })));
  const seconds = (performance.now() - begin) / 1000;
  const failed = results.filter((each) => each.status === "rejected" || each.value.exitCode !== 0);
  console.log(`${burst} runs of /bin/true at once: ${seconds.toFixed(1)} s, ${(burst / seconds).toFixed(1)} VMs per second, ${failed.length} failed; goal: none`);
}

async function warmExec() {
  const vm = await startVm(size);
  try {
    const added = [];
    for (let n = 0; n < 220; n++) {
      const begin = performance.now();
      const { outcome } = await guestExec(vm);
      if (n >= 20) added.push(performance.now() - begin - outcome.durationMs);
    }
    added.sort((a, b) => a - b);
    console.log(`warm exec of /bin/true, what pyro adds to the guest's own time: p50 ${added[99].toFixed(1)} ms, p99 ${added[197].toFixed(1)} ms; goal: 2 and 10`);
  } finally {
    await vm.end();
  }
}

async function guestExec(vm) {
  const guest = vm.channel.exec({ argv: ["/bin/true"], stdin: false });
  guest.stdout.resume();
  guest.stderr.resume();
  return { outcome: await guest.result };
}

async function exec(vm, command) {
  return execInVm(vm, name, { command, timeoutSeconds: 120, captureBytes: 1024 });
}
