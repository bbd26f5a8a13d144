// What the guest's network costs: throughput each way, connections and answers one after the other. Floor: QEMU's built-in user network (slirp), which
// runs inside of QEMU, in a guest forked from the same template, with the same addresses inside. Where there is passt (PASST, or in PATH), a third guest has that: written in C, a
// process beside QEMU as ours is, it shows what being one costs. All guests run the same Perl against the same server on this host; they take turns, so a busy machine hits each.
// Megabytes (10^6) by MB, rounds by PAIRS, connections and answers a round by COUNT. And: the gateway's processor time and memory, and what a network adds to the start of a VM.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { connectChannel } from "../dist/channel/index.js";
import { execInVm } from "../dist/core/exec.js";
import { guestNetwork } from "../dist/core/guest-network.js";
import { startVm } from "../dist/core/start.js";
import { openEnvironment } from "../dist/environments/index.js";
import { Pyro } from "../dist/index.js";
import { findTemplate, forkBare } from "./bare-qemu.mjs";
import { rollup } from "./pss.mjs";
import { describeMs, median } from "./statistics.mjs";

const pairs = Number(process.env.PAIRS ?? 5);
const bytes = Number(process.env.MB ?? 100) * 1e6;
const rounds = Number(process.env.COUNT ?? 300);
const name = "debian:12";
const memMib = 1024;
const bulk = Buffer.alloc(1 << 20, "x");

/** In the guest: opens, says what it wants, does it. */
const client = String.raw`
use strict; use Socket; use Time::HiRes "time";
my ($host, $port, $mode, $bytes, $rounds) = @ARGV;
sub open_one { socket(my $s, PF_INET, SOCK_STREAM, 0) or die; connect($s, sockaddr_in($port, inet_aton($host))) or die "connect: $!"; syswrite($s, shift); return $s }
my $begin = time; my $buffer = "x" x 1048576;
if ($mode eq "u") { my $s = open_one("u"); for (my $left = $bytes; $left > 0;) { my $n = syswrite($s, $buffer, $left < 1048576 ? $left : 1048576) or die; $left -= $n } shutdown($s, 1); sysread($s, $buffer, 1) == 1 or die }
if ($mode eq "d") { my $s = open_one("d$bytes\n"); my $left = $bytes; while (my $n = sysread($s, $buffer, 1048576)) { $left -= $n } $left == 0 or die "$left missing" }
if ($mode eq "c") { for (1 .. $rounds) { my $s = open_one("p"); sysread($s, $buffer, 1) == 1 or die; close($s) } }
if ($mode eq "p") { my $s = open_one("p"); sysread($s, $buffer, 1); setsockopt($s, 6, 1, 1); for (1 .. $rounds) { syswrite($s, "x"); sysread($s, $buffer, 1) == 1 or die } }
print 1000 * (time - $begin);`;

const own = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === "IPv4" && !internal)?.address;
if (own === undefined) throw new Error("This bench needs an address of the host that is not its loopback.");
const server = createServer({ allowHalfOpen: true }, serve).listen(0, "0.0.0.0");
await new Promise((resolve) => server.once("listening", resolve));
const { port } = server.address();

const policy = { mode: "public", allowHosts: [], denyHosts: [], allowNets: [`${own}/32`] };
const vm = await startVm({ environment: name, vcpuCount: 1, memMib, ttlSeconds: 900, network: { policy, publish: [], secrets: [] } });
const gateway = gatewayPid();
const idle = rollup(gateway);
const environment = await openEnvironment(name);
const bare = [];
const passt = process.env.PASST ?? (process.env.PATH ?? "").split(":").map((each) => join(each, "passt")).find((each) => existsSync(each));
const guests = {
  slirp: { vm: await bareGuest(withSlirp), host: guestNetwork.gateway },
  ...(passt === undefined ? {} : { passt: { vm: await bareGuest(await startPasst(passt)), host: guestNetwork.gateway } }),
  gateway: { vm, host: own },
};
if (passt === undefined) console.log("passt is not here to compare with");

try {
  console.log(`accelerator ${vm.accelerator}; floor: QEMU's built-in user network`);
  const rate = (ms) => bytes / 1000 / ms;
  await report("guest to host", "u", "MB/s", rate);
  await report("host to guest", "d", "MB/s", rate);
  await report("connections, one after the other", "c", "a second", (ms) => (rounds * 1000) / ms);
  await report("answers over one connection, one after the other", "p", "a second", (ms) => (rounds * 1000) / ms);
  console.log(`gateway, idle: ${(idle.Rss / 1000).toFixed(0)} MB resident, of which its share is ${(idle.Pss / 1000).toFixed(0)} MB; goal: at most 55 MB`);
} finally {
  for (const each of bare) await each.end();
  await vm.end();
  server.close();
}
await reportStart();

async function report(what, mode, unit, rateOf) {
  const turns = Object.keys(guests);
  const rates = Object.fromEntries(turns.map((whose) => [whose, []]));
  let spent = 0;
  for (const whose of turns) await turn(guests[whose], mode); // the first of each is translated
  for (let pair = 0; pair < pairs; pair++) {
    for (const whose of turns) {
      const before = cpuMs(gateway);
      rates[whose].push(rateOf(await turn(guests[whose], mode)));
      if (whose === "gateway") spent += cpuMs(gateway) - before;
    }
    turns.push(turns.shift());
  }
  const show = (whose) => `${whose} ${median(rates[whose]).toFixed(0)} ${unit} (${Math.min(...rates[whose]).toFixed(0)} to ${Math.max(...rates[whose]).toFixed(0)})`;
  const ratio = (one, other) => `${one} by ${other} ${median(rates[one].map((rate, pair) => rate / rates[other][pair])).toFixed(2)}`;
  const each = mode === "u" || mode === "d" ? `${((spent / pairs / bytes) * 1e6).toFixed(2)} s a GB` : `${(spent / pairs / rounds).toFixed(2)} ms each`;
  const others = "passt" in guests ? [ratio("passt", "slirp"), ratio("gateway", "passt")] : [];
  console.log(`${what}, ${pairs} times: ${Object.keys(guests).map(show).join(", ")}; round by round ${[ratio("gateway", "slirp"), ...others].join(", ")}; goal: at least slirp's; the gateway's processor time ${each}`);
}

/** The guest says how long it took, milliseconds. */
async function turn({ vm: guest, host }, mode) {
  const { exitCode, stdout, stderr } = await execInVm(guest, name, { command: ["/usr/bin/perl", "-e", client, host, String(port), mode, String(bytes), String(rounds)], timeoutSeconds: 300, captureBytes: 65_536 });
  if (exitCode !== 0) throw new Error(`the guest's client: status ${exitCode}: ${stderr}`);
  return Number(stdout);
}

function serve(socket) {
  socket.on("error", () => {});
  socket.setNoDelay(true);
  socket.once("data", (first) => {
    if (first[0] === 0x75) socket.on("data", () => {}).on("end", () => socket.end("x"));
    else if (first[0] === 0x64) {
      let left = Number(String(first).slice(1));
      const more = () => {
        while (left > 0) {
          const part = bulk.subarray(0, left);
          left -= part.length;
          if (!socket.write(part)) return void socket.once("drain", more);
        }
        socket.end();
      };
      more();
    } else {
      socket.write("x");
      socket.on("data", (chunk) => socket.write(chunk)).on("end", () => socket.end());
    }
  });
}

/** A fork with the network that `change` puts into its command; all have the same addresses inside. */
async function bareGuest(change) {
  const machine = forkBare(environment, findTemplate(environment.digest, memMib), { accelerator: vm.accelerator, memMib }, change);
  bare.push(machine);
  const channel = await connectChannel(machine.port, { fresh: true, signal: AbortSignal.timeout(120_000) });
  await channel.identify({ vmId: "vm-bench", hostname: "bench", machineId: randomBytes(16).toString("hex"), network: guestNetwork });
  return { ...vm, channel, openGateway: undefined, variables: {} };
}

/** The same card, with another network behind it. */
function withNet(words, net) {
  const at = words.findIndex((word) => word.startsWith("virtio-net-device"));
  return [...words.slice(0, at - 1), "-netdev", `${net},id=net`, "-device", `${words[at]},netdev=net`, ...words.slice(at + 1)];
}

function withSlirp(words) {
  const { address, gateway: host, prefix } = guestNetwork;
  return withNet(words, `user,ipv6=off,net=${host.replace(/\d+$/, "0")}/${prefix},host=${host},dns=${host.replace(/\d+$/, "3")},dhcpstart=${address}`);
}

async function startPasst(program) {
  const directory = mkdtempSync(join(tmpdir(), "pyro-bench-"));
  const socket = join(directory, "socket");
  const { address, gateway: host, prefix } = guestNetwork;
  // It gives up root, which has nothing to do with what is measured; then it could not make its socket here.
  const child = spawn(program, ["-f", "-4", "-s", socket, "-a", address, "-n", String(prefix), "-g", host, "-m", "9000", ...(process.getuid() === 0 ? ["--runas", "0"] : [])], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  bare.push({ end: async () => (child.kill(), await ended, rmSync(directory, { recursive: true })) });
  while (!existsSync(socket)) {
    if (child.exitCode !== null) throw new Error(`passt ended with status ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return (words) => withNet(words, `stream,server=off,addr.type=unix,addr.path=${socket}`);
}

/** The newest gateway of this host is ours: the bench runs alone. */
function gatewayPid() {
  const pids = readdirSync("/proc").filter((each) => /^\d+$/.test(each)).map(Number);
  const isGateway = (pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("gateway.cjs") && parentOf(parentOf(pid)) === process.pid;
    } catch {
      return false;
    }
  };
  return pids.find((pid) => isGateway(pid));
}

function parentOf(pid) {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))[1]);
}

/** Processor time used so far; ticks are 10 ms (proc(5), stat). */
function cpuMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function reportStart() {
  const pyro = new Pyro();
  const times = { without: [], with: [] };
  for (let round = 0; round < pairs * 2 + 1; round++) {
    for (const whose of round % 2 === 0 ? ["without", "with"] : ["with", "without"]) {
      const begin = performance.now();
      await pyro.runInVm({ environment: name, command: ["/bin/true"], memMib, network: whose === "with" });
      if (round > 0) times[whose].push(performance.now() - begin);
    }
  }
  console.log(`sdk.runInVm of /bin/true: without a network ${describeMs(times.without)}, with one ${describeMs(times.with)}; pair by pair plus ${median(times.with.map((ms, round) => ms - times.without[round])).toFixed(0)} ms; goal: at most plus 60 ms`);
}
