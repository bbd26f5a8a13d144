import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

// Between the keeper's poll and its taking the question, QEMU may be ended; then it must not wait for the next question, as there is none.
test("whoever asks the keeper and is killed before it is answered does not hold it up, and the next one is answered", async ({ skip }) => {
  const directory = mkdtempSync(join(tmpdir(), "pyro-asker-"));
  try {
    const program = join(directory, "killed-asker");
    execFileSync("cc", ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-o", program, join(import.meta.dirname, "killed-asker.c"), join(import.meta.dirname, "../../keeper/confine.c")]);
    const { stdout, code } = await promisify(execFile)(program, { timeout: 240_000, killSignal: "SIGKILL" }).then(({ stdout }) => ({ stdout, code: 0 as unknown }), (error: { stdout: string; code: unknown }) => error);
    skip(code === 77, "no seccomp filter with a listener can be had here");
    expect({ code, stdout }).toEqual({ code: 0, stdout: "answered\n" });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
