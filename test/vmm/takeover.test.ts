// A monitor that its guest has taken over: a program that is started in QEMU's place, by the same code and into the same confinement, and tries
// (takeover.c) what must not be possible. What only QEMU's own filter refuses, starting programs, it can't show: takeover.c does not set that filter up.
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nativeProgram } from "../../src/base/paths.js";
import { inspectConfinement, startVm } from "../../src/vmm/index.js";

const root = process.getuid!() === 0;

/** Which piece of the confinement refuses what, and how. */
const table: readonly (readonly [piece: string, attempt: string, result: string])[] = [
  ["files", "read a file of the user's", "ENOENT"],
  ["files", "read another VM's memory", "ENOENT"],
  ["files", "read /etc/passwd", "ENOENT"],
  ["files", "read /proc/self/environ", "ENOENT"],
  ["files", "read /sys/kernel/notes", "ENOENT"],
  ["files", "read a device", "ENOENT"],
  ["files", "climb out of the root", "ENOENT"],
  ["files", "climb out by a descriptor", "EBADF"],
  ["files", "list the user's directory", "ENOENT"],
  ["files", "read a process of the user's environment", "ENOENT"],
  ["files", "read a process of the user's memory", "ENOENT"],
  ["files", "read a process of the user's files", "ENOENT"],
  ["files", "execute a program of the user's", "ENOENT"],
  ["calls", "make a file in /", "EACCES"],
  ["calls", "make a file in /tmp", "EACCES"],
  ["calls", "write to a program of the system's", "EACCES"],
  ["calls", "cut a program of the system's off", "EACCES"],
  ["calls", "open /dev/kvm, not being told to", "EACCES"],
  ["calls", "make a device", "EACCES"],
  ["calls", "make a directory", "EACCES"],
  ["calls", "make a name", "EACCES"],
  ["calls", "remove a file", "ENOENT"],
  ["calls", "rename a file", "EACCES"],
  ["calls", "open by handle", "EPERM"],
  ["descriptors", "write to a disk for reading", "EBADF"],
  ["descriptors", "map a disk for writing", "EACCES"],
  ["descriptors", "cut a disk off", "EINVAL"],
  ["descriptors", "punch a hole into a disk", "EBADF"],
  ["calls", "change a disk's mode", "EPERM"],
  ["calls", "change a disk's owner", "EPERM"],
  ["calls", "change a disk's times", "EPERM"],
  ["calls", "give a disk an attribute", "EPERM"],
  ["calls", "give a disk a flag", "EPERM"],
  ["calls", "open a disk once more, for writing", "EACCES"],
  ["calls", "connect to the host", "EACCES"],
  ["calls", "UDP", "EACCES"],
  ["calls", "IPv6", "EACCES"],
  ["calls", "raw packets", "EACCES"],
  ["calls", "netlink", "EACCES"],
  ["calls", "vsock", "EACCES"],
  ["calls", "connect to another VM", "EACCES"],
  ["calls", "connect to an abstract socket", "EACCES"],
  ["calls", "fork", "EPERM"],
  ["calls", "vfork", "EPERM"],
  ["calls", "clone", "EPERM"],
  ["calls", "clone3", "ENOSYS"],
  ["calls", "signal a process of the user's", "EPERM"],
  ["calls", "signal everybody", "EPERM"],
  ["calls", "signal a thread", "EPERM"],
  ["calls", "queue a signal", "EPERM"],
  ["calls", "trace a process of the user's", "EPERM"],
  ["calls", "read a process of the user's", "EPERM"],
  ["calls", "write to a process of the user's", "EPERM"],
  ["calls", "open a process of the user's", "EPERM"],
  ["calls", "limit a process of the user's", "EPERM"],
  ["calls", "have signals sent", "EPERM"],
  ["privileges", "become root", "EPERM|EINVAL"],
  ["privileges", "have capabilities", "EPERM"],
  ["privileges", "forget no_new_privs", "EINVAL"],
  ["privileges", "write core dumps", "EPERM"],
  ["calls", "a user namespace", "EPERM"],
  ["calls", "enter a namespace", "EPERM"],
  ["calls", "mount", "EPERM"],
  ["calls", "unmount", "EPERM"],
  ["calls", "change the root", "EPERM"],
  ["calls", "pivot the root", "EPERM"],
  ["calls", "copy a mount", "EPERM"],
  ["privileges", "name the host", "EPERM"],
  ["calls", "set the clock", "EPERM"],
  ["calls", "io_uring", "ENOSYS"],
  ["calls", "userfaultfd", "EPERM"],
  ["calls", "bpf", "EPERM"],
  ["calls", "perf", "EPERM"],
  ["calls", "keys", "EPERM"],
  ["calls", "a kernel module", "EPERM"],
  ["calls", "another kernel", "EPERM"],
  ["calls", "reboot", "EPERM"],
  ["calls", "the kernel's log", "EPERM"],
  ["calls", "ports", "EPERM"],
];

let directory: string;
let program: string;
let aims: string;
const servers: Server[] = [];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "pyro-takeover-"));
  chmodSync(directory, 0o755);
  mkdirSync(join(directory, "bin"));
  program = join(directory, "bin", "takeover");
  await promisify(execFile)("cc", ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-static", "-o", program, join(import.meta.dirname, "takeover.c")]);
  for (const name of ["memory", "disk", "kernel", "initramfs", "template"]) writeFileSync(join(directory, name), `this is the ${name}\n`);
  for (const each of ["vm", "user"]) mkdirSync(join(directory, each));
  writeFileSync(join(directory, "user", "secret"), "the user's\n");
  copyFileSync("/usr/bin/true", join(directory, "user", "program"));
  const listen = (server: Server, where: object) => new Promise<void>((resolve, reject) => void server.on("error", reject).listen(where, resolve));
  for (const where of [{ host: "127.0.0.1", port: 0 }, { path: join(directory, "vm", "port.0") }]) {
    const server = createServer((socket) => socket.destroy());
    servers.push(server);
    await listen(server, where);
  }
  aims = `secret=${join(directory, "user", "secret")} memory=${join(directory, "memory")} socket=${join(directory, "vm", "port.0")} port=${(servers[0]!.address() as AddressInfo).port} abstract=pyro pid=${process.pid} program=${join(directory, "user", "program")}`;
});
afterAll(() => {
  for (const server of servers) server.close();
  rmSync(directory, { recursive: true, force: true });
});

/** What was said, and that nothing but what is not had on this host went through. Landlock leaves other files in sight, and refuses them. */
function check(said: string, pieces: ReadonlyMap<string, boolean>, inSight = false): string[] {
  const lines = said.split(/;\s*|\n/);
  const results = new Map(lines.flatMap((line) => (/ (?:refused [A-Z0-9]+|DONE)$/.test(line) ? [line.split(/ (?:refused )?(?=[A-Z0-9]+$)/) as [string, string]] : [])));
  const wrong: string[] = [];
  const notHeld: string[] = [];
  for (const [piece, attempt, result] of table) {
    const wanted = inSight && piece === "files" && result === "ENOENT" ? "EACCES" : result;
    if (pieces.get(piece) === false) notHeld.push(attempt);
    else if (!wanted.split("|").includes(results.get(attempt) ?? "")) wrong.push(`${attempt}: ${results.get(attempt) ?? "not tried"}, and not ${wanted}`);
  }
  if (notHeld.length > 0) console.log(`[takeover] not refused, as the piece of the confinement that would is not there: ${notHeld.join(", ")}`);
  expect(wrong).toEqual([]);
  return lines.filter((line) => !/ (?:refused [A-Z0-9]+|DONE)$/.test(line));
}

it("in QEMU's place, the taken-over program gets nowhere", async () => {
  const before = process.env["PYRO_QEMU"];
  process.env["PYRO_QEMU"] = program;
  try {
    const vm = await startVm(
      { vcpuCount: 1, memMib: 128, kernel: join(directory, "kernel"), initramfs: join(directory, "initramfs"), rootDisk: join(directory, "disk"), temporaryDirectory: directory, kernelArguments: aims.split(" ") },
      { accelerator: "tcg" },
    );
    const { stderr, code } = await vm.exited;
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    const pieces = new Map((await inspectConfinement()).map(({ name, had }) => [name, had]));
    const said = check(stderr, pieces);
    if (pieces.get("namespaces")) expect(said).toContain("process 1, of 0");
    expect(said).toContain(`user ${!root ? "of an ordinary one" : pieces.get("user") ? "of its own" : "root"}`);
    expect(readFileSync(join(directory, "disk"), "utf8")).toBe("this is the disk\n");
  } finally {
    if (before === undefined) delete process.env["PYRO_QEMU"];
    else process.env["PYRO_QEMU"] = before;
  }
});

// All tests here ask the keeper what can't be had, and let that pass: so somebody else is asked as well, util-linux.
it.for([{ who: "root" }, { who: "an ordinary user" }])("what this host lets $who have, the confinement has", ({ who }, { skip }) => {
  skip(who === "root" && !root, "these tests don't run as root");
  const as = root && who !== "root" ? ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"] : [];
  const keeper = join(mkdtempSync(join(directory, "asked-")), "pyro-keeper");
  chmodSync(dirname(keeper), 0o755);
  copyFileSync(nativeProgram("pyro-keeper"), keeper);
  chmodSync(keeper, 0o755);
  const run = (...words: string[]) => spawnSync([...as, ...words][0]!, [...as, ...words].slice(1), { encoding: "utf8" });
  const namespaces = [...(who === "root" ? [] : ["--user", "--map-root-user"]), "--mount", "--net", "--ipc", "--pid", "--uts", "--fork"];
  const allowed = {
    namespaces: run("unshare", ...namespaces, "true").status === 0,
    files: run("unshare", ...namespaces, "sh", "-c", "mount -t tmpfs tmpfs /mnt && mount --bind /usr /usr").status === 0,
    user: who === "root" && run("setpriv", "--reuid=2130706433", "--regid=2130706433", "--clear-groups", "true").status === 0,
  };
  const pieces = parsePieces(run(keeper, "confinement").stdout);
  expect([...pieces.keys()]).toEqual(["privileges", "user", "namespaces", "files", "calls"]);
  for (const [piece, is] of Object.entries(allowed)) if (is) expect([piece, pieces.get(piece)]).toEqual([piece, true]);
});

// Where tests run as root, an ordinary user's confinement is another one: it has a user namespace, and the files belong to whom it runs as.
it("the same for an ordinary user; and a template's memory is for reading", () => {
  const own = join(directory, "own");
  const copies = join(directory, "keeper");
  for (const each of [own, copies]) mkdirSync(each);
  for (const name of ["disk", "template"]) writeFileSync(join(own, name), `this is the ${name}\n`, { mode: 0o600 });
  const keeper = join(copies, "pyro-keeper");
  copyFileSync(nativeProgram("pyro-keeper"), keeper);
  chmodSync(keeper, 0o755);
  const as = root ? ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"] : [];
  if (root) execFileSync("chown", ["-R", "1000:1000", own]);
  const [memory, disk, life] = [openSync(join(own, "template"), "r"), openSync(join(own, "disk"), "r"), openSync("/dev/zero", "r")];
  const run = (words: string[]) => {
    const [command, ...args] = [...as, keeper, ...words] as [string, ...string[]];
    return spawnSync(command, args, { stdio: ["ignore", "pipe", "pipe", memory, disk, life], encoding: "utf8" });
  };
  const pieces = parsePieces(run(["confinement"]).stdout);
  const { stderr, status } = run(["keep", "--lifeline", "5", "--grace-ms", "0", "--confine", "seal=3", "--", program, "-append", `${aims} reopen=3`]);
  for (const fd of [memory, disk, life]) closeSync(fd);
  expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
  const said = check(stderr, pieces);
  expect(said).toContain("user of an ordinary one");
  if (pieces.get("calls")) {
    expect(said).toEqual(expect.arrayContaining(["the memory is for reading", "mapping it privately is possible", "holes into it are believed in"]));
    for (const each of ["write to a template's memory refused EBADF;", "map a template's memory for writing refused EACCES;", "get it a second time refused EACCES;"]) expect(stderr).toContain(each);
  }
  expect(readFileSync(join(own, "template"), "utf8")).toBe("this is the template\n");
});

// Such hosts are common. In a user namespace in which no further ones may be made, and without the rights that its root has.
const script = `for n in user mnt net pid ipc uts; do echo 0 >/proc/sys/user/max_\${n}_namespaces || exit 9; done
  aims=$1; shift
  p="setpriv --bounding-set=-all --securebits=+noroot $*"; $p ./pyro-keeper confinement && $p ./pyro-keeper keep --lifeline 5 --grace-ms 0 --confine seal=3 -- ./takeover -append "pid=parent reopen=3 $aims"`;

it.for([
  { kernel: "a kernel that has Landlock", before: [], files: true },
  { kernel: "one that has it, in a container that may not ask for mounts", before: ["./takeover", "without-mount-calls"], files: true },
  { kernel: "a kernel that has no Landlock", before: ["./takeover", "without-landlock"], files: false },
])("where no namespaces can be made, what is missing is said, and all else holds: $kernel", ({ before, files }, { skip }) => {
  const copies = mkdtempSync(join(directory, "plain-"));
  chmodSync(copies, 0o755);
  for (const [from, name] of [[nativeProgram("pyro-keeper"), "pyro-keeper"], [program, "takeover"]] as const) {
    copyFileSync(from, join(copies, name));
    chmodSync(join(copies, name), 0o755);
  }
  const as = root ? ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"] : [];
  const words = [...as, "unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", aims, ...before.map((word) => word.replace(/^\./, copies))];
  const fds = [join(directory, "template"), join(directory, "disk"), "/dev/zero"].map((file) => openSync(file, "r"));
  const { stdout, stderr, status } = spawnSync(words[0]!, words.slice(1), { cwd: copies, stdio: ["ignore", "pipe", "pipe", ...fds], encoding: "utf8" });
  fds.forEach(closeSync);
  skip(status === 1 || status === 9, `no user namespaces here: ${stderr.slice(0, 200)}`);
  skip(files && /no Landlock: (?:Function not implemented|Operation not supported)/.test(stdout), `this kernel has none: ${stdout}`);
  expect(status).toBe(0);
  const pieces = parsePieces(stdout);
  expect(Object.fromEntries(pieces)).toEqual({ privileges: true, user: false, namespaces: false, files, calls: true });
  expect(stdout).toMatch(files ? /^files yes: Landlock \d+$/m : /^files no: it has no mount namespace, and no Landlock: Function not implemented$/m);
  check(stderr.replace("become root DONE", "become root refused EPERM"), pieces, files); // it is that one's root already
  // That the attempts are real shows where nothing is in their way.
  const results = ["read a file of the user's", "read another VM's memory", "read a process of the user's environment", "list the user's directory"].map((attempt) => stderr.includes(`${attempt} DONE`));
  expect(results).toEqual(files ? [false, false, false, false] : [true, true, true, true]);
});

it("where the keeper can't answer for it, memory that others have is not given to a program at all", () => {
  const fds = [join(directory, "template"), "/dev/zero"].map((file) => openSync(file, "r"));
  const keep = (confine: string, ...before: string[]) => {
    const [command = "", ...args] = [...before, nativeProgram("pyro-keeper"), "keep", "--lifeline", "4", "--grace-ms", "0", "--confine", confine, "--", "/bin/echo", "runs"];
    const { status, stdout, stderr } = spawnSync(command, args, { stdio: ["ignore", "pipe", "pipe", ...fds], encoding: "utf8" });
    return [status, stdout, stderr];
  };
  expect(keep("seal=3")).toEqual([0, "runs\n", ""]);
  expect(keep("reopen=3", program, "without-questions")).toEqual([0, "runs\n", ""]);
  expect(keep("seal=3", program, "without-questions")).toEqual([125, "", "pyro-keeper: memory can't be sealed here\n"]);
  fds.forEach(closeSync);
});

it.for([64, 200, 250, 251])("with %i descriptors at most, what is sealed has a number, too", (most) => {
  const fds = [join(directory, "template"), join(directory, "template"), "/dev/zero"].map((file) => openSync(file, "r"));
  const words = ["keep", "--lifeline", "5", "--grace-ms", "0", "--confine", "seal=3", "--", program, "-append", "reopen=3"];
  const { stderr } = spawnSync("sh", ["-c", `ulimit -n ${most}; exec "$@"`, "sh", nativeProgram("pyro-keeper"), ...words], { stdio: ["ignore", "pipe", "pipe", ...fds], encoding: "utf8" });
  fds.forEach(closeSync);
  expect(stderr).toContain("holes into it are believed in");
});

function parsePieces(said: string): Map<string, boolean> {
  return new Map(said.trim().split("\n").map((line) => [line.split(" ")[0]!, / yes(?:: .*)?$/.test(line)]));
}
