// A host that lets users make no namespaces, as many do: pyro in a user namespace in which no further ones may be made, without any capability. There
// only Landlock keeps the user's files from QEMU, and everything works all the same.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { nativeProgram } from "../../src/base/paths.js";
import { main } from "../built.js";
import { collect, processesWith } from "./pyro.js";

const environment = "debian:12-base";
const words = [
  "--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "sh", "-c",
  `for n in user mnt net pid ipc uts; do echo 0 >/proc/sys/user/max_\${n}_namespaces || exit 9; done
  exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs "$@"`, "sh",
];
let directory: string;
let pieces: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-no-namespaces-"));
  const { stdout, stderr } = spawnSync("unshare", [...words, nativeProgram("pyro-keeper"), "confinement"], { encoding: "utf8" });
  pieces = stdout === "" ? `it can't be had here: ${stderr}` : stdout;
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  return spawn("unshare", [...words, process.execPath, main, ...args], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, XDG_STATE_HOME: directory, ...env } });
}
const pyro = (...args: string[]) => collect(start(args));

test("without namespaces, VMs boot, fork, run, have files and a network, and Landlock keeps this host's files from QEMU", async ({ skip }) => {
  skip(!pieces.startsWith("privileges"), pieces);
  skip(/no Landlock: (?:Function not implemented|Operation not supported)/.test(pieces), pieces);
  expect(pieces).toMatch(/^privileges yes\nuser no: only root can give it another user\nnamespaces no: this host lets us make none\nfiles yes: Landlock \d+\ncalls yes\n$/);

  const cold = await collect(start(["run", environment, "--json", "--", "sh", "-c", "echo cold; exit 3"], { PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" }));
  expect({ status: cold.status, stderr: cold.stderr, ...(JSON.parse(cold.stdout) as object) }).toMatchObject({ status: 3, stderr: "", stdout: "cold\n", execution_mode: "guest" });

  const created = await pyro("vm", "create", environment, "--network", "--allow-host", "nowhere.invalid");
  const id = created.stdout.trim();
  expect([created.status, created.stderr]).toEqual([0, ""]);
  try {
    expect((await pyro("vm", "start", id)).status).toBe(0); // a template, and a fork of it
    const [qemu] = processesWith(join(directory, "pyro-mcp", "vms", id)).filter((line) => !line.includes("pyro-keeper") && line.includes("qemu")).map((line) => line.split(" ")[0]!);
    const status = readFileSync(`/proc/${qemu}/status`, "latin1");
    expect(status).toMatch(/^CapBnd:\t0+$[^]*^NoNewPrivs:\t1$[^]*^Seccomp:\t2$/m);
    expect(readlinkSync(`/proc/${qemu}/ns/mnt`)).toBe(readlinkSync("/proc/self/ns/mnt"));

    writeFileSync(join(directory, "in"), "a file\n");
    expect((await pyro("cp", join(directory, "in"), `${id}:/root/in`)).status).toBe(0);
    expect(await pyro("vm", "exec", id, "--quiet", "--", "sh", "-c", "cat /root/in; getent hosts pyro.invalid || echo no such host; tr a-z A-Z </root/in >/root/out")).toMatchObject({ status: 0, stdout: "a file\nno such host\n" });
    expect((await pyro("cp", `${id}:/root/out`, join(directory, "out"))).status).toBe(0);
    expect(readFileSync(join(directory, "out"), "utf8")).toBe("A FILE\n");
  } finally {
    expect((await pyro("vm", "delete", id)).status).toBe(0);
  }

  const doctor = await pyro("doctor", "--json");
  expect(doctor.status).toBe(0);
  expect((JSON.parse(doctor.stdout) as { checks: object[] }).checks).toContainEqual({
    name: "confinement",
    ok: false,
    detail: expect.stringMatching(/^QEMU runs without privileges, without this host's files \(by Landlock \d+\), with filtered system calls, not in namespaces of its own \(this host lets us make none\)$/) as string,
    fix: expect.stringMatching(/^let users make namespaces/) as string,
  });
});
