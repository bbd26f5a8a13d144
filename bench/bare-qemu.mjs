// QEMU started without pyro around it: the floor of the other benches. The words are pyro's own (src/vmm/backends/qemu-command.ts); there is
// no keeper, no check and no SDK, and a guest gets no identity, clock or entropy.
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, readdirSync, statSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cacheDirectory } from "../dist/base/paths.js";
import { bootCommand, Descriptors, firstPortFd, forkCommand, monitorFd } from "../dist/vmm/backends/qemu-command.js";
import { canSealMemory } from "../dist/vmm/confinement.js";
import { emptyOverlay } from "../dist/vmm/qcow2.js";
import { tscKhz } from "../dist/vmm/tsc.js";

/** As pyro has it, for one machine: nothing seals a template's memory here, and no guest of a bench gives any back. */
const sealable = await canSealMemory();

/** The directory of the template of this environment (its digest) and memory size that was made last. */
export function findTemplate(digest, memMib) {
  const templates = join(cacheDirectory(), "templates");
  const found = readdirSync(templates).filter((each) => /^[0-9a-f]{64}$/.test(each)).map((each) => join(templates, each));
  const fitting = found.map((directory) => ({ directory, ...JSON.parse(readFileSync(join(directory, "manifest.json"), "utf8")) })).filter((each) => each.environment === digest && each.files.memory.split(" ")[1] === String(memMib * 2 ** 20));
  return fitting.sort((a, b) => b.createdAtMs - a.createdAtMs)[0].directory;
}

/** Goes on from a template. `port` is the guest's; `end` resolves when QEMU is gone. `change` gets the words and gives those that are used. */
export function forkBare(environment, template, { accelerator, memMib }, change = (words) => words) {
  const files = new Files();
  const stdio = new Descriptors();
  const disks = { root: files.open(environment.rootDisk), scratch: { base: files.open(scratchBase()), frozen: files.open(join(template, "scratch")), top: files.overlay() } };
  const args = change(forkCommand(stdio, { vcpuCount: 1, memMib }, accelerator, disks, { file: files.open(join(template, "memory")), share: false, sealable }));
  const state = stdio.add(files.open(join(template, "device-state")).fd);
  const { child, ...machine } = start(args, stdio, files);
  const qmp = child.stdio[monitorFd];
  for (const [execute, args] of [["qmp_capabilities", {}], ["migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: true }] }], ["migrate-incoming", { uri: `fd:${state}` }]]) {
    qmp.write(`${JSON.stringify({ execute, arguments: args })}\n`);
  }
  return machine;
}

/** Boots. `change` gets the words and gives those that are used. */
export async function bootBare(environment, { accelerator, memMib }, change = (words) => words) {
  const files = new Files();
  const stdio = new Descriptors();
  const disks = { root: files.open(environment.rootDisk), scratch: { base: files.open(scratchBase()), top: files.overlay() } };
  const { kernel, initramfs } = environment;
  return start(change(bootCommand(stdio, { vcpuCount: 1, memMib, kernel, initramfs }, accelerator, await tscKhz(), disks)), stdio, files);
}

function start(args, stdio, files) {
  const child = spawn("qemu-system-x86_64", args, { stdio: stdio.list });
  files.close();
  for (const stream of child.stdio) stream?.on("error", () => {});
  // What nobody reads must not fill up: errors and warnings, the monitor, the console.
  for (const stream of child.stdio.slice(2, firstPortFd)) stream?.resume();
  const gone = new Promise((resolve) => child.once("exit", resolve));
  return {
    child,
    port: child.stdio[firstPortFd],
    end: async () => {
      child.kill("SIGKILL");
      await gone;
    },
  };
}

const scratchBase = () => join(cacheDirectory(), "scratch", "10240.ext4");

/** Open until QEMU has its copies. */
class Files {
  #fds = [];
  open(path, flags = "r") {
    return { fd: this.#fds[this.#fds.push(openSync(path, flags)) - 1] };
  }
  overlay() {
    const path = join(tmpdir(), `pyro-bench-${process.pid}`);
    const file = this.open(path, "w+");
    unlinkSync(path);
    writeSync(file.fd, emptyOverlay(statSync(scratchBase()).size));
    return file;
  }
  close() {
    for (const fd of this.#fds) closeSync(fd);
  }
}
