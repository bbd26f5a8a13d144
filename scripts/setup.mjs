// Makes a bare checkout ready: Debian packages that are missing, npm packages, the build. Safe to run again: what is there
// is left alone. Plain JavaScript without dependencies, because it runs before there are any.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** What pyro calls, and what its two static programs are compiled with. */
const runtimePackages = ["qemu-system-x86", "mmdebstrap", "uidmap", "lz4", "e2fsprogs", "debian-archive-keyring", "gcc", "libc6-dev", "make"];
/** What only the tests need. */
const testPackages = ["erofs-utils", "acl", "bubblewrap", "libcap2-bin", "cpio", "procps", "python3", "iproute2", "util-linux", "openssl", "openssh-client", "python3-pip", "qemu-utils", "nano", "strace", "zsh", "fish", "umoci", "skopeo", "docker-registry", "zstd", "gpg", "gpg-agent", "gpgv", "xz-utils"];

/** Runs `command`, its output shown; ends this process when it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (result.error) fail(`${command} could not be started: ${result.error.message}`);
  if (result.status !== 0) process.exit(result.status ?? 1);
}

export function setUp({ tests = false } = {}) {
  installDebianPackages(tests ? [...runtimePackages, ...testPackages] : runtimePackages);
  installNpmPackages();
  run(process.execPath, ["scripts/build.mjs"]);
}

function installDebianPackages(wanted) {
  const missing = wanted.filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  const install = ["apt-get", "install", "-y", "--no-install-recommends", ...missing];
  const asRoot = process.getuid() === 0 ? [] : sudo();
  if (asRoot === undefined) {
    fail(`These Debian packages are missing, and installing them needs root. Run this, then the same command again:\n\n  sudo apt-get update && sudo ${install.join(" ")}\n`);
  }
  say(`installing Debian packages: ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  for (const command of [["apt-get", "update", "-q"], install]) {
    const [program, ...args] = [...asRoot, ...command];
    run(program, args, { env, stdio: ["inherit", "ignore", "inherit"] });
  }
}

function isInstalled(name) {
  const { stdout, status } = spawnSync("dpkg-query", ["-W", "-f", "${db:Status-Status}", name], { encoding: "utf8" });
  return status === 0 && stdout.trim() === "installed";
}

/** The words that make a command run as root, or undefined: sudo that asks for nothing, or that can ask on a terminal. */
function sudo() {
  if (spawnSync("sudo", ["-n", "true"], { stdio: "ignore" }).status === 0) return ["sudo", "-n"];
  if (process.stdin.isTTY && spawnSync("sudo", ["--version"], { stdio: "ignore" }).status === 0) return ["sudo"];
  return undefined;
}

function installNpmPackages() {
  const lock = join(root, "package-lock.json");
  const stamp = join(root, "node_modules", ".installed-for");
  const wanted = readFileSync(lock, "utf8");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted && statSync(stamp).isFile()) return;
  say("installing npm packages");
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  writeFileSync(stamp, wanted);
}

export function say(text) {
  process.stderr.write(`[setup] ${text}\n`);
}

function fail(text) {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setUp({ tests: process.argv.includes("--tests") });
