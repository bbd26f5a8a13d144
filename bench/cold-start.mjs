// What pyro adds to a cold boot. Floor: QEMU with the command line that pyro itself gave it, the same kernel, initramfs and image,
// and a few lines that speak to the guest directly: no keeper, no checks, no command line. Both run /bin/true in debian:12;
// pyro's time is the whole process from spawn to exit, Node's start included. They take turns, so a busy machine hits both.
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, readdirSync, readlinkSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { emptyOverlay } from "../dist/vmm/qcow2.js";
import { askTrue } from "./ask-true.mjs";
import { describeMs, median } from "./statistics.mjs";

const rounds = Number(process.env.ROUNDS ?? 7);
const main = fileURLToPath(new URL("../dist/main.cjs", import.meta.url));
const environment = "debian:12";
/** Every VM is booted. */
const env = { ...process.env, PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" };

await pyro(["env", "pull", environment]);
const command = await captureCommandLine();
await timePyro(); // the verdict on KVM and the scratch disk's base are there from here on
await timeBare(command);
const bare = [];
const whole = [];
for (let round = 0; round < rounds; round++) {
  bare.push(await timeBare(command));
  whole.push(await timePyro());
}
const added = whole.map((ms, round) => ms - bare[round]);
console.log(`bare QEMU, cold, to the answer of /bin/true:  ${describeMs(bare)}`);
console.log(`pyro run ${environment} -- /bin/true, whole process: ${describeMs(whole)}`);
console.log(`pyro adds, pair by pair: ${describeMs(added)}; ratio ${median(whole.map((ms, round) => ms / bare[round])).toFixed(2)}; goal: at most 250 ms`);

function pyro(args) {
  const child = spawn(process.execPath, [main, ...args], { stdio: "ignore", env });
  return new Promise((resolve) => child.once("close", resolve));
}

async function timePyro() {
  const begin = performance.now();
  const child = spawn(process.execPath, [main, "run", environment, "--quiet", "--", "/bin/true"], { stdio: ["ignore", "ignore", "inherit"], env });
  const status = await new Promise((resolve) => child.once("close", resolve));
  if (status !== 0) throw new Error(`pyro run: status ${status}`);
  return performance.now() - begin;
}

/** The words pyro gives to QEMU, and the files behind the descriptors it hands on. */
async function captureCommandLine() {
  const child = spawn(process.execPath, [main, "run", environment, "--quiet", "--", "sh", "-c", "echo; sleep 5"], { stdio: ["ignore", "pipe", "ignore"], env });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const keeper = children(child.pid).find((pid) => words(pid).some((word) => word.includes("qemu-system")));
  const qemu = children(keeper).find((pid) => words(pid)[0].includes("qemu-system"));
  const args = words(qemu);
  // QEMU has moved the descriptors it was handed: which file each was is told by the name of the block node that uses it.
  const links = readdirSync(`/proc/${qemu}/fd`).map((fd) => readlinkSync(`/proc/${qemu}/fd/${fd}`));
  const files = { "root-file": links.find((path) => path.endsWith("/root.erofs")), "base-file": links.find((path) => path.endsWith(".ext4")), "scratch-file": "new overlay" };
  const nodes = args.filter((word) => word.startsWith("{")).map((word) => JSON.parse(word));
  const descriptors = new Map();
  for (const word of args) {
    for (const [, fd, set] of word.matchAll(/\bfd=(\d+)(?:,set=(\d+))?/g)) {
      const node = nodes.find((each) => each.filename === `/dev/fdset/${set}`);
      descriptors.set(Number(fd), node === undefined ? undefined : files[node["node-name"]]);
    }
  }
  child.kill("SIGTERM");
  await new Promise((resolve) => child.once("close", resolve));
  return { args, descriptors };
}

function children(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number));
}

function words(pid) {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
}

async function timeBare({ args, descriptors }) {
  const begin = performance.now();
  const stdio = ["ignore", "ignore", "ignore"];
  const opened = [];
  const base = [...descriptors.values()].find((path) => path?.endsWith(".ext4"));
  for (let fd = 3; fd <= Math.max(...descriptors.keys()); fd++) {
    const path = descriptors.get(fd);
    if (path === undefined) stdio.push("pipe");
    else stdio.push(path === "new overlay" ? overlay(base, opened) : open(path, "r", opened));
  }
  const child = spawn(args[0], args.slice(1), { stdio });
  for (const fd of opened) closeSync(fd);
  for (const stream of child.stdio) stream?.on("error", () => {});
  const portFd = Number(/fd=(\d+)/.exec(args.find((word) => word.startsWith("socket,id=port0")))[1]);
  await askTrue(child.stdio[portFd]);
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  return performance.now() - begin;
}

function open(path, flags, opened) {
  const fd = openSync(path, flags);
  opened.push(fd);
  return fd;
}

function overlay(base, opened) {
  const path = join(tmpdir(), `pyro-bench-${process.pid}`);
  const fd = open(path, "w+", opened);
  unlinkSync(path);
  const size = Number(/(\d+)/.exec(base.split("/").at(-1))[1]) * 1024 * 1024;
  writeSync(fd, emptyOverlay(size));
  return fd;
}
