// Which processor and translator settings run real work fastest under emulation: the machine pyro boots, with one word of its command line changed.
// Counted is the processor time of QEMU, as that is what the work costs and is less disturbed by what else the machine does. Each round has new VMs, as a command of pyro's
// has: nothing is translated in advance. The settings take turns work by work, so a busy machine hits all of them. Usage: node bench/cpu-models.mjs [cpu|translator|kernel]; rounds by ROUNDS.
import { readFileSync } from "node:fs";
import { connectChannel } from "../dist/channel/index.js";
import { openEnvironment } from "../dist/environments/index.js";
import { Pyro } from "../dist/index.js";
import { bootBare } from "./bare-qemu.mjs";
import { rollup } from "./pss.mjs";

const rounds = Number(process.env.ROUNDS ?? 5);
const name = "debian:12-build";

/** Words that take the place of others. */
const cpu = (model) => ({ "-cpu": () => model });
const translator = (of) => ({ "-accel": of });
const sets = {
  cpu: {
    "max": cpu("max"),
    "qemu64": cpu("qemu64"),
    "Nehalem": cpu("Nehalem"),
    "Haswell": cpu("Haswell"),
    "EPYC": cpu("EPYC"),
    "max without avx2, avx": cpu("max,-avx2,-avx"),
    "max without erms": cpu("max,-erms"),
    "max without la57": cpu("max,-la57"),
    "max without smap, smep": cpu("max,-smap,-smep"),
    "max without smap, erms, la57": cpu("max,-smap,-erms,-la57"),
  },
  translator: {
    ...Object.fromEntries([64, 16, 32, 128, 256].map((mib) => [`tb-size=${mib}`, translator((words) => words.replace(/tb-size=\d+/, `tb-size=${mib}`))])),
    "tb-size=64, thread=single": translator((words) => words.replace(/thread=multi,tb-size=\d+/, "thread=single,tb-size=64")),
  },
  kernel: {
    "programs at fixed addresses": {},
    "at random ones": { "-append": (words) => words.replace(" norandmaps", "") },
  },
};

/** Made before the clock runs, in the guest. */
const prepare = `
mkdir -p /root/tree && cd /root/tree
perl -e 'for my $d (1..20) { mkdir "d$d"; for my $f (1..15) { open my $o, ">", "d$d/f$f.txt"; print $o "line $_ of file $f in $d\\n" for 1..60 } }'
perl -e 'for my $n (1..3) { print "int f$n(int *a, int n) { int s = $n; for (int i = 0; i < n; i++) { if (a[i] % \${\\($n + 1)} == 0) s += a[i] * $n; else s ^= a[i] << (s & 7); } return s; }\\n" } print "int main(void) { int a[9] = {0}; return f1(a, 9); }\\n"' > /root/big.c
head -c 32000000 /dev/zero | tr '\\0' x > /root/blob`;

const works = {
  "git init, add, commit": "cd /root/tree && git init -q && git add . && git -c user.name=a -c user.email=a@b commit -q -m all && git log --oneline | wc -l",
  "gcc -O2": "gcc -O2 -o /root/big /root/big.c",
  "perl": `perl -e 'my %h; for my $i (1..100000) { my $w = "word" . ($i * 7919 % 5000); $h{$w}++ if $w =~ /^w(or|ar)d(\\d+)$/ } print scalar(keys %h), "\\n"; print join(",", (sort { $h{$a} <=> $h{$b} || $a cmp $b } keys %h)[0..3]), "\\n"'`,
  "tar, create and extract": "mkdir /root/out && tar -C /usr/share/perl -cf /root/a.tar . && tar -C /root/out -xf /root/a.tar",
  "sha256sum": "sha256sum /root/blob",
  "100 commands of a script": "for n in $(seq 50); do ls / > /root/ls; grep -c usr /root/ls > /root/count; done",
};

const environment = await ready();
for (const set of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(sets)) await compare(sets[set]);

async function ready() {
  await new Pyro().pullEnvironment(name);
  // The scratch disk's base is made by the first run.
  await new Pyro().runInVm({ environment: name, command: ["/bin/true"] });
  return openEnvironment(name);
}

async function compare(settings) {
  const times = Object.fromEntries(Object.keys(settings).map((setting) => [setting, Object.fromEntries(columns().map((column) => [column, []]))]));
  for (let round = 0; round < rounds; round++) {
    // Not always in the same order: what comes first, or after a busy moment, has it harder.
    const order = Object.keys(settings).map((setting) => [Math.random(), setting]).sort().map(([, setting]) => setting);
    await oneRound(order.map((setting) => ({ changes: settings[setting], times: times[setting] })));
  }
  print(times);
}

/** All VMs at once, each idle until its turn: what is compared is then only seconds apart. */
async function oneRound(turns) {
  const vms = [];
  try {
    for (const { changes, times } of turns) {
      const vm = await bootBare(environment, { accelerator: "tcg", memMib: 1024 }, (words) => words.map((word, at) => changes[words[at - 1]]?.(word) ?? word));
      vms.push(vm);
      vm.channel = await connectChannel(vm.port, { fresh: true });
      times["boot"].push(cpuMs(vm.child.pid));
      await shell(vm.channel, prepare);
    }
    for (const [work, script] of Object.entries(works)) {
      for (const [index, { times }] of turns.entries()) {
        const { child, channel } = vms[index];
        const before = cpuMs(child.pid);
        await shell(channel, script);
        times[work].push(cpuMs(child.pid) - before);
      }
    }
    for (const [index, { times }] of turns.entries()) {
      times["all of it"].push(Object.keys(works).reduce((sum, work) => sum + times[work].at(-1), 0));
      times["memory, MB"].push(rollup(vms[index].child.pid).Pss / 1000);
    }
  } finally {
    await Promise.all(vms.map((vm) => vm.end()));
  }
}

/** User and system time of all its threads, milliseconds (proc(5), fields 14 and 15 of stat, in hundredths of a second). */
function cpuMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function shell(channel, script) {
  const guest = channel.exec({ argv: ["/bin/sh", "-ec", script], stdin: false });
  const errors = [];
  guest.stdout.resume();
  guest.stderr.on("data", (chunk) => errors.push(chunk));
  const { exitCode } = await guest.result;
  if (exitCode !== 0) throw new Error(`status ${exitCode} of ${script}: ${Buffer.concat(errors)}`);
}

function columns() {
  return ["boot", ...Object.keys(works), "all of it", "memory, MB"];
}

/** The least of each, as what else the machine does only adds to it; behind it how many times the first setting's. */
function print(times) {
  const [first] = Object.values(times);
  const least = (of, column) => Math.min(...of[column]);
  console.log(`| milliseconds of processor time, least of ${rounds} | ${columns().join(" | ")} |\n|${" --- |".repeat(columns().length + 1)}`);
  for (const [setting, of] of Object.entries(times)) {
    console.log(`| ${setting} | ${columns().map((column) => `${least(of, column).toLocaleString("en", { maximumFractionDigits: 0 })} (${(least(of, column) / least(first, column)).toFixed(2)})`).join(" | ")} |`);
  }
  console.log(JSON.stringify(times));
}
