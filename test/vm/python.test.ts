// The Python client with the built `pyro` and real VMs.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { afterAll, expect, test } from "vitest";
import { main } from "../built.js";
import { eventually, leftovers, processesWith, pyro } from "./pyro.js";

const home = process.env["HOME"]!;
const client = new URL("../../clients/python", import.meta.url).pathname;
afterAll(async () => {
  expect(await eventually(() => leftovers(home).length === 0)).toBe(true);
});

function python(...args: string[]): ChildProcess {
  return spawn("python3", args, { cwd: client, stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, PYTHONPATH: client, PYRO_EXECUTABLE: main, PYTHONDONTWRITEBYTECODE: "1" } });
}

/** The child's lines of output, each waited for. */
function linesOf(child: ChildProcess): () => Promise<string> {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return async () => String((await lines.next()).value);
}

const running = "from pyro_mcp import Pyro; p = Pyro(); p.run_in_vm('debian:12-base', command='sleep 1000', timeout_seconds=1000, progress=lambda each: print(each['phase'], flush=True))";

test("its own tests: runs, VMs with a record, twenty at once, errors", async () => {
  const child = python("-W", "error", "-m", "unittest", "discover", "-v", "-s", "tests/vm");
  const [status] = (await once(child, "close")) as [number];
  expect(status).toBe(0);
});

test("Ctrl-C ends the call's VM before it is raised again, and no other", async () => {
  const child = python("-c", `
import threading
from pyro_mcp import Pyro
p = Pyro()
vm = p.create_vm("debian:12-base", ttl_seconds=280)["vm_id"]
p.start_vm(vm)
print(vm, flush=True)
other = threading.Thread(target=lambda: print("other", p.exec_vm(vm, command="until test -e /go; do sleep 0.1; done; echo whole", timeout_seconds=200)["stdout"].strip(), flush=True))
other.start()
try:
    p.run_in_vm("debian:12-base", command="sleep 1000", timeout_seconds=1000, progress=lambda each: print(each["phase"], flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
`);
  const line = linesOf(child);
  const vmId = await line();
  for (let phase = await line(); phase !== "exec"; phase = await line()) expect(["probe", "waiting", "template", "start"]).toContain(phase);
  child.kill("SIGINT");
  expect(await line()).toBe("interrupted");
  expect(qemus()).toBe(1); // the other one's
  expect((await pyro(["vm", "exec", vmId, "--", "touch", "/go"])).status).toBe(0);
  expect(await line()).toBe("other whole");
  expect(await once(child, "close")).toEqual([0, null]);
});

test("Python killed: no VM of run_in_vm is left, one that was created lives on", async () => {
  const child = python("-c", running.replace("p.run_in_vm", "vm = p.create_vm('debian:12-base', ttl_seconds=300)['vm_id']; p.start_vm(vm); print(vm, flush=True); p.run_in_vm"));
  const line = linesOf(child);
  const vmId = await line();
  for (let phase = await line(); phase !== "exec"; ) phase = await line();
  expect(qemus()).toBe(2);
  child.kill("SIGKILL");
  await once(child, "close");
  expect(await eventually(() => qemus() === 1)).toBe(true);
  const result = await pyro(["vm", "exec", vmId, "--rm", "--quiet", "--", "echo", "lives"]);
  expect(result.stdout).toBe("lives\n");
  expect(await eventually(() => leftovers(home).length === 0)).toBe(true);
});

test("Python killed at any moment leaves no process and no file", async () => {
  for (const ms of [100, 300, 500, 700, 900, 1200, 1600, 2500]) {
    const child = python("-c", running);
    child.stdout!.resume();
    setTimeout(() => child.kill("SIGKILL"), ms);
    await once(child, "close");
    expect({ ms, clean: await eventually(() => leftovers(home).length === 0), left: leftovers(home) }).toEqual({ ms, clean: true, left: [] });
  }
});

test("pyro killed under it: the call says so, its VM is gone, and the next call works", async () => {
  const child = python("-c", `
from pyro_mcp import Pyro, PyroError
p = Pyro()
try:
    p.run_in_vm("debian:12-base", command="sleep 1000", timeout_seconds=1000, progress=lambda each: print(each["phase"], p._connections._current._process.pid, flush=True))
except PyroError as error:
    print(error.code, flush=True)
print(p.run_in_vm("debian:12-base", command="echo again")["stdout"], flush=True)
`);
  const line = linesOf(child);
  let [phase, pid] = (await line()).split(" ");
  while (phase !== "exec") [phase, pid] = (await line()).split(" ");
  process.kill(Number(pid), "SIGKILL");
  expect(await line()).toBe("GUEST_LOST");
  expect(await line()).toBe("again");
  expect((await once(child, "close"))[0]).toBe(0);
});

function qemus(): number {
  return processesWith(home).filter((line) => line.includes("qemu-system") && !line.includes("pyro-keeper")).length;
}
