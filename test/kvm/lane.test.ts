// The built pyro under KVM, wherever there is one. What it does is what its tests under emulation have it do; here it is that KVM does it, and how fast.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openKvmMachine, type KvmMachine } from "./machine.js";

const environment = "debian:12-base";
const size = "--mem-mib 256";

let machine: KvmMachine;
const rows: [string, string][] = [];
beforeAll(async () => {
  machine = await openKvmMachine();
});
afterAll(async () => {
  await machine?.close();
  const width = Math.max(...rows.map(([what]) => what.length));
  console.log([`KVM on ${machine?.name}:`, ...rows.map(([what, figure]) => `  ${what.padEnd(width)}  ${figure}`)].join("\n"));
});

const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

async function json<T>(script: string): Promise<T> {
  const { status, stdout, stderr } = await machine.sh(script);
  if (stdout === "") throw new Error(`status ${status}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

test("doctor: a guest ran under KVM", async () => {
  const report = await json<{ checks: object[] }>("pyro doctor --json");
  expect(report).toMatchObject({ runtime: "PASS", accelerator: "kvm", kvm: { exists: true, readable: true, writable: true, guest_ran: true } });
  expect(report.checks).toContainEqual({ name: "guest", ok: true, detail: expect.stringMatching(/^booted under kvm in [0-9]+ ms and ran a command$/) as string });
});

test("a template", async () => {
  const begin = Date.now();
  expect(await json(`pyro env warm ${environment} ${size} --json`)).toMatchObject({ accelerator: "kvm", made: true });
  rows.push(["template, made once", seconds(Date.now() - begin)]);
});

/** Medians, milliseconds; and their rows. */
function compare(by: string, ran: { how: string; bootMs: number }[]): void {
  const [boots, forks] = ["boot", "fork"].map((how) => ran.filter((each) => each.how === how).map((each) => each.bootMs)) as [number[], number[]];
  const [bootMs, forkMs] = [median(boots), median(forks)];
  rows.push([`cold boot ${by}, median of ${boots.length}`, seconds(bootMs)], [`fork ${by}, median of ${forks.length}`, seconds(forkMs)], [`cold boot / fork ${by}`, (bootMs / forkMs).toFixed(1)]);
}

const maxAge = (how: string) => (how === "boot" ? "0" : "86400");

test("cold boots and forks, in turn", async () => {
  const turns = ["fork", "fork", "boot", "fork", "fork", "boot", "fork", "fork", "boot", "fork"];
  const script = `
    import { Pyro } from "'$PYRO'/dist/index.js";
    const run = (how) => {
      process.env.PYRO_TEMPLATE_MAX_AGE_SECONDS = how === "boot" ? "${maxAge("boot")}" : "${maxAge("fork")}";
      return new Pyro().runInVm({ environment: "${environment}", memMib: 256, timeoutSeconds: 120, command: ["sh", "-c", "echo out; exit 7"] });
    };
    for (let n = 0; n < 3; n++) await run("fork"); // where Node is emulated, it is slow before it has seen its code
    const ran = [];
    for (const how of ${JSON.stringify(turns)}) ran.push({ how, ...(await run(how)) });
    console.log(JSON.stringify(ran));`;
  const ran = await json<{ how: string; accelerator: string; bootMs: number; exitCode: number; stdout: string }[]>(`node --input-type=module -e '${script}'`);
  expect(ran.map((each) => [each.accelerator, each.exitCode, each.stdout])).toEqual(turns.map(() => ["kvm", 7, "out\n"]));
  compare("by the SDK", ran);
});

test("the same by the command, whose Node is new each time", async () => {
  const ran = [];
  for (const how of ["fork", "boot", "fork", "fork"]) {
    const { stderr, stdout } = await machine.sh(`PYRO_LOG=debug PYRO_TEMPLATE_MAX_AGE_SECONDS=${maxAge(how)} pyro run ${environment} ${size} --json --timeout-seconds 120 -- sh -c 'echo out; exit 7'`);
    const result = JSON.parse(stdout) as { accelerator: string; boot_ms: number; exit_code: number; stdout: string };
    expect(result).toMatchObject({ accelerator: "kvm", stdout: "out\n", exit_code: 7 });
    expect(stderr).not.toMatch(/template/); // what is there does
    ran.push({ how, bootMs: result.boot_ms });
  }
  compare("by the command", ran);
});

let outliving: string;

test("a VM that outlives its maker", async () => {
  const { status, stdout } = await machine.sh(`vm=$(pyro vm create ${environment} ${size} --ttl-seconds 90 --start) && echo $vm && pyro vm exec $vm --quiet -- echo alive`);
  expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringMatching(/^vm-[0-9a-z]{8}\nalive\n$/) as string });
  outliving = stdout.split("\n")[0]!;
});

test("20 forks at once: each is itself, with randomness of its own and the time that it is", async () => {
  const guest = "cat /proc/sys/kernel/random/uuid /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/hostname; date +%s.%N";
  const script = `
    import { Pyro } from "'$PYRO'/dist/index.js";
    const phases = [];
    const begin = Date.now();
    const forks = await Promise.all(Array.from({ length: 20 }, async () => {
      const began = Date.now();
      const result = await new Pyro().runInVm({ environment: "${environment}", memMib: 256, timeoutSeconds: 500, command: ["sh", "-c", "${guest}"], onPhase: ({ phase }) => phases.push(phase) });
      return { began, ended: Date.now(), ...result };
    }));
    console.log(JSON.stringify({ forks, phases, ms: Date.now() - begin }));`;
  const { forks, phases, ms } = await json<{ forks: { began: number; ended: number; vmId: string; accelerator: string; exitCode: number; stdout: string }[]; phases: string[]; ms: number }>(`node --input-type=module -e '${script}'`);
  expect(forks.map((each) => [each.accelerator, each.exitCode])).toEqual(Array.from({ length: 20 }, () => ["kvm", 0]));
  expect(phases.toSorted()).toEqual([...Array.from({ length: 20 }, () => "exec"), ...Array.from({ length: 20 }, () => "start")]);
  const lines = forks.map((each) => each.stdout.trim().split("\n").map((line) => line.trim()));
  expect(lines.map((each) => each.length)).toEqual(forks.map(() => 5));
  for (let index = 0; index < 4; index++) expect(new Set(lines.map((each) => each[index]))).toHaveProperty("size", 20);
  expect(lines.map((each) => each[3])).toEqual(forks.map((each) => each.vmId));
  for (const [index, { began, ended }] of forks.entries()) {
    const guestMs = Number(lines[index]![4]) * 1000;
    expect(guestMs).toBeGreaterThan(began - 200);
    expect(guestMs).toBeLessThan(ended + 200);
  }
  rows.push(["20 forks at once, until all have answered", seconds(ms)]);
});

/** Mostly waiting, so all at once. */
describe.concurrent("what ends a VM", () => {
  test("the command's time-out", async ({ expect }) => {
    const { status, stdout } = await machine.sh(`pyro run ${environment} ${size} --timeout-seconds 30 -- sh -c 'echo before; sleep 1000 & sleep 1000'`);
    expect({ status, stdout }).toEqual({ status: 124, stdout: "before\n" });
  });

  test("its time to live", async ({ expect }) => {
    const { status, stderr } = await machine.sh(`pyro run ${environment} ${size} --ttl-seconds 20 --timeout-seconds 300 -- sleep 300`);
    expect(status).toBe(125);
    expect(stderr).toMatch(/^error: The VM's time to live ended/m);
  });

  test("SIGKILL of pyro: keeper and QEMU end too", async ({ expect }) => {
    const { stdout, stderr } = await machine.sh(`
      out=$(mktemp)
      pyro run ${environment} ${size} --quiet --timeout-seconds 500 -- sh -c 'echo ready; sleep 1000' >$out & pyro=$!
      until grep -q ready $out || ! kill -0 $pyro; do sleep 0.2; done
      cat $out; rm $out
      children() { cat /proc/$1/task/*/children; }
      for keeper in $(children $pyro); do kept="$kept $keeper $(children $keeper)"; done
      cat $(for pid in $kept; do echo /proc/$pid/comm; done)
      disown $pyro; kill -9 $pyro
      for pid in $kept; do while kill -0 $pid 2>/dev/null; do sleep 0.2; done; done
      echo gone`);
    expect(stderr).toBe("");
    expect(stdout).toBe("ready\npyro-keeper\nqemu-system-x86\ngone\n");
  });

  test("its time to live, where it has outlived its maker", async ({ expect }) => {
    const { stdout, stderr } = await machine.sh(`vm=${outliving}; while grep -q /vms/$vm /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.5; done; pyro vm status $vm`);
    expect(stdout).toBe("");
    expect(stderr).toContain("its time to live is over");
  });
});
