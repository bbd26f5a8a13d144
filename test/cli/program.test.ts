import { expect, test } from "vitest";
import { Command } from "commander";
import { define as defineRun } from "../../src/cli/commands/run.js";
import { define as defineVm } from "../../src/cli/commands/vm.js";
import { splitGuestCommand } from "../../src/cli/words.js";

// The flags are those of the real definitions; none of their actions is called.
const program = new Command("pyro");
for (const define of [defineRun, defineVm]) define(program, { interrupts: {} } as Parameters<typeof define>[1]);


test.each([
  ["run debian:12 -- git --version", ["run", "debian:12"], ["git", "--version"]],
  ["run debian:12 git --version", ["run", "debian:12"], ["git", "--version"]],
  ["run --json debian:12 --mem-mib 512 git --json", ["run", "--json", "debian:12", "--mem-mib", "512"], ["git", "--json"]],
  ["run --mem-mib=512 debian:12 true", ["run", "--mem-mib=512", "debian:12"], ["true"]],
  ["run debian:12 -- -- x", ["run", "debian:12"], ["--", "x"]],
  ["run debian:12 - x", ["run", "debian:12"], ["-", "x"]],
  ["run -it debian:12 bash -i", ["run", "-it", "debian:12"], ["bash", "-i"]],
  ["run debian:12 -ti -- bash", ["run", "debian:12", "-ti"], ["bash"]],
  ["run -i --env A=b --user x --workdir / -t debian:12 env", ["run", "-i", "--env", "A=b", "--user", "x", "--workdir", "/", "-t", "debian:12"], ["env"]],
  ["run --disk-mib 64 --ttl-seconds 9 --timeout-seconds 5 --vcpu-count 2 e c", ["run", "--disk-mib", "64", "--ttl-seconds", "9", "--timeout-seconds", "5", "--vcpu-count", "2", "e"], ["c"]],
  ["vm exec -it vm-22222222 bash -c x", ["vm", "exec", "-it", "vm-22222222"], ["bash", "-c", "x"]],
  ["vm exec --timeout-seconds 5 vm-22222222 --rm -- x", ["vm", "exec", "--timeout-seconds", "5", "vm-22222222", "--rm"], ["x"]],
  ["run --help", ["run", "--help"], []],
  ["run", ["run"], []],
])("%s", (line, own, guest) => {
  expect(splitGuestCommand(program, line.split(" "))).toEqual({ own, guest });
});
