// A guest whose first program is hostile (hostile-init.c), on a real machine: what test/channel/hostile.test.ts says on a socket, and what only a real one can do. Of each
// lie pyro says what was wrong, within its bounds of memory, and leaves nothing running.
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildInitramfs } from "../../src/environments/initramfs.js";
import { main } from "../built.js";
import { copyCache } from "./cache.js";
import { collect, eventually, processesWith, type PyroResult } from "./pyro.js";

const environment = "debian:12-base";
/** What pyro may take, all in all; it has 60 to 90 MiB when it does nothing. */
const mostMib = 250;

let directory: string;
let place: string;
let honest: Buffer;
let liar: Buffer;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "pyro-hostile-init-"));
  copyCache(directory, environment);
  const environments = join(directory, "pyro-mcp", "environments");
  place = join(environments, readdirSync(environments).find((name) => /^[0-9a-f]{64}$/.test(name))!);
  honest = readFileSync(join(place, "initramfs"));
  const guest = (file: string) => new URL(`../../guest/${file}`, import.meta.url).pathname;
  const own = new URL("hostile-init.c", import.meta.url).pathname;
  const shared = ["modules.c", "log.c", "loop.c", "mounts.c", "ports.c"].map(guest);
  execFileSync("gcc", ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Os", "-static", "-s", "-I", guest("."), "-o", join(directory, "liar"), own, ...shared]);
  liar = readFileSync(join(directory, "liar"));
});
afterAll(async () => {
  expect(await eventually(() => processesWith(directory).length === 0), processesWith(directory).join("\n")).toBe(true);
  rmSync(directory, { recursive: true });
});

/** Its program is in the place of the guest's: of two files of one name in an initramfs the last one counts. */
function install(lie: string): void {
  const program = Buffer.from(liar);
  const at = program.indexOf("LIE=none\0");
  expect(at).toBeGreaterThan(0);
  program.write(`LIE=${lie}\0`, at, "latin1");
  const initramfs = Buffer.concat([honest, buildInitramfs(program, [])]);
  writeFileSync(join(place, "initramfs"), initramfs);
  const manifest = JSON.parse(readFileSync(join(place, "manifest.json"), "utf8")) as { files: Record<string, object> };
  manifest.files["initramfs"] = { size_bytes: initramfs.length, digest: `sha256:${createHash("sha256").update(initramfs).digest("hex")}` };
  writeFileSync(join(place, "manifest.json"), JSON.stringify(manifest));
}

interface Seen extends PyroResult {
  mostMib: number;
}

async function run(words: string[], { flags = [], env = {}, input, unread = false }: { flags?: string[]; env?: Record<string, string>; input?: Buffer; unread?: boolean } = {}): Promise<Seen> {
  const child = spawn(process.execPath, [main, "run", environment, "--mem-mib", "128", ...flags, "--", ...words], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, XDG_CACHE_HOME: directory, PYRO_ACCELERATOR: "tcg", ...env } });
  let most = 0;
  const look = () => {
    try {
      most = Math.max(most, Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, "latin1"))?.[1] ?? 0) / 1024);
    } catch {
      // it has ended
    }
  };
  const timer = setInterval(look, 20);
  const done = collect(child, { timeoutMs: 120_000, ...(input !== undefined && { input }) });
  // Whoever reads late still gets all: up to then pyro waits, with what was wrong said and the VM ended.
  if (unread) {
    child.stdout.pause();
    child.stderr.once("data", () => void eventually(() => processesWith(directory).length === 0).then(() => child.stdout.resume()));
  }
  const result = await done.finally(() => clearInterval(timer));
  return { ...result, mostMib: most };
}

/** That it failed with this, said in words that harm no terminal, and left nothing. */
async function failed(result: Seen, code: string, message: RegExp): Promise<void> {
  expect(result).toMatchObject({ status: 125, signal: null, stdout: "" });
  const { error } = JSON.parse(result.stderr) as { error: { code: string; message: string; hint?: string } };
  expect({ code: error.code, text: `${error.message}\n${error.hint ?? ""}` }).toEqual({ code, text: expect.stringMatching(message) as string });
  expect(JSON.stringify(error)).not.toMatch(/\\u00(?:0[0-8b-f]|1[0-9a-f]|7f|9b)/);
  await within(result);
}

async function within(result: Seen): Promise<void> {
  expect(result.mostMib).toBeGreaterThan(10);
  expect(result.mostMib).toBeLessThan(mostMib);
  expect(await eventually(() => processesWith(directory).length === 0), processesWith(directory).join("\n")).toBe(true);
}

test.for([
  ["console", "BOOT_FAILED", /powered off[^]*all of your terminal are belong to us/],
  ["flood", "PROTOCOL", /hello/i],
  ["version", "PROTOCOL", /version/i],
  ["fault", "PROTOCOL", /all of your terminal are belong to us/],
] as const)("from its beginning: %s", async ([lie, code, message]) => {
  install(lie);
  await failed(await run(["true"], { flags: ["--json"], env: { PYRO_TEMPLATE_MAX_AGE_SECONDS: "0" } }), code, message);
});

test("a guest that is well behaved up to its first command is frozen and forked like any other, and each fork's lie is its own", async () => {
  install("none");
  expect(await run(["truth"], { flags: ["--json"] })).toMatchObject({ status: 42 });
  expect(await run(["output"], { flags: ["--quiet"] })).toMatchObject({ status: 0, stdout: "said", stderr: "" });
  for (const [lie, code, message] of [
    ["length", "PROTOCOL", /over 65536 \(MAX_PAYLOAD\)/],
    ["type", "PROTOCOL", /a frame of type 0x7f/],
    ["hello", "PROTOCOL", /sent HELLO twice/],
    ["stranger", "PROTOCOL", /for stream 100\d, which is not open/],
    ["early", "PROTOCOL", /RESULT before END/],
    ["more", "PROTOCOL", /BYTES_1 1 after 0 bytes/],
    ["generous", "PROTOCOL", /\(MAX_CREDIT\)/],
    ["off", "GUEST_LOST", /powered itself off or crashed/],
  ] as const) {
    await failed(await run([lie], { flags: ["--json"] }), code, message);
  }
});

test("output without regard to credit, console without an end, a port that is closed", async () => {
  const credit = await run(["credit"], { flags: ["--quiet"], unread: true });
  expect(credit).toMatchObject({ status: 125, stderr: expect.stringContaining("bytes of DATA_1 with a credit of 0") as string });
  await within(credit);

  const shown = await run(["console"]);
  expect(shown).toMatchObject({ status: 0, stdout: "" });
  expect(shown.stderr).not.toMatch(/[\u001b\u009b]|belong/);
  await within(shown);

  const close = await run(["close"], { flags: ["--quiet", "--timeout-seconds", "1"] });
  expect(close).toMatchObject({ status: 124, stdout: "" });
  await within(close);
});
