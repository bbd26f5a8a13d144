import { expect, test } from "vitest";
import { splitGuestCommand } from "../../src/cli/program.js";

test.each([
  ["run debian:12 -- git --version", ["run", "debian:12"], ["git", "--version"]],
  ["run debian:12 git --version", ["run", "debian:12"], ["git", "--version"]],
  ["run --json debian:12 --mem-mib 512 git --json", ["run", "--json", "debian:12", "--mem-mib", "512"], ["git", "--json"]],
  ["run --mem-mib=512 debian:12 true", ["run", "--mem-mib=512", "debian:12"], ["true"]],
  ["run debian:12 -- -- x", ["run", "debian:12"], ["--", "x"]],
  ["run debian:12 - x", ["run", "debian:12"], ["-", "x"]],
  ["run --help", ["run", "--help"], []],
  ["run", ["run"], []],
])("%s", (line, own, guest) => {
  expect(splitGuestCommand(line.split(" "))).toEqual({ own, guest });
});
