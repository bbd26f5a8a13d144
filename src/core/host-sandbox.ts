/** bubblewrap, for commands that run on the host: it hides the user's files, processes and the network from them, where it is there and works. */
import { existsSync, lstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { findProgram, runChild } from "../base/child.js";
import { toPyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { nativeProgram } from "../base/paths.js";

export interface SandboxRequest {
  /** On the host; in it are `home` and `tmp`. */
  directory: string;
  hostname: string;
  network: boolean;
}

/** How a command gets into it. */
export interface Sandbox {
  /** bubblewrap's command line, up to the program that it runs. */
  words: readonly [string, ...string[]];
  /** Options that no other user is to see in a list of processes: the environment. */
  options(environment: Record<string, string>): string[];
  /** The keeper's path in it. */
  keeper: string;
}

export const sandboxHome = "/home/user";
const keeperInside = "/run/pyro-keeper";

/** The directories of programs; where /usr is merged, links into it. */
const roots = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/** What programs look up, of which nothing is secret: /etc as a whole has passwords and keys in it that root may read. */
const settingsOfHost = [
  "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "environment", "ethertypes", "fonts", "group", "host.conf", "hosts",
  "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "login.defs", "magic", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki/tls",
  "profile", "profile.d", "protocols", "python3", "python3.11", "resolv.conf", "rpc", "services", "shells", "skel", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
];

/** Tried with a program that does nothing: bubblewrap is often there where the kernel or a container forbids what it needs. */
export async function findSandbox(request: SandboxRequest): Promise<{ sandbox: Sandbox; whyNot?: undefined } | { sandbox?: undefined; whyNot: string }> {
  try {
    const program = await findProgram("bwrap");
    const words = sandboxWords(request);
    const { code, stderr } = await runChild(program, [...words, "/bin/sh", "-c", ":"], { timeoutMs: 10_000 });
    if (code === 0) return { sandbox: { words: [program, ...words], options: environmentOptions, keeper: keeperInside } };
    return { whyNot: `bubblewrap, which could hide them, does not work here: ${harmlessLine(stderr.trim() || `status ${code}`, 200)}.` };
  } catch (error) {
    const { code, message, hint } = toPyroError(error);
    return { whyNot: code === "HOST_MISSING" ? `bubblewrap could hide them: ${hint}` : `bubblewrap, which could hide them, does not work here: ${harmlessLine(message, 200)}` };
  }
}

function sandboxWords({ directory, hostname, network }: SandboxRequest): string[] {
  return [
    "--unshare-all", ...(network ? ["--share-net"] : []),
    "--die-with-parent",
    "--hostname", hostname,
    "--ro-bind", "/usr", "/usr",
    ...roots.flatMap(rootWords),
    ...settingsOfHost.flatMap((name) => ["--ro-bind-try", `/etc/${name}`, `/etc/${name}`]),
    "--proc", "/proc",
    "--dev", "/dev",
    "--bind", join(directory, "tmp"), "/tmp",
    "--symlink", "../tmp", "/var/tmp",
    "--bind", join(directory, "home"), sandboxHome,
    "--ro-bind", nativeProgram("pyro-keeper"), keeperInside,
    "--remount-ro", "/",
    "--chdir", "/",
  ];
}

/** Not as its own environment: what a caller sets for the command (LD_PRELOAD) is not for bubblewrap, which runs outside. */
function environmentOptions(environment: Record<string, string>): string[] {
  return ["--clearenv", ...Object.entries(environment).flatMap(([name, value]) => ["--setenv", name, value])];
}

function rootWords(name: string): string[] {
  const path = `/${name}`;
  if (!existsSync(path)) return [];
  return lstatSync(path).isSymbolicLink() ? ["--symlink", readlinkSync(path), path] : ["--ro-bind", path, path];
}
