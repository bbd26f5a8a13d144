/**
 * The one place that reads environment variables. Each is read when asked for, so that a test or an embedding program can
 * change it; an empty value counts as unset.
 */
import { existsSync } from "node:fs";
import { PyroError } from "./error.js";

/** Of Debian, Arch and Alpine; Fedora and RHEL; openSUSE. What a company trusts has been added there. */
const certificateFiles = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"] as const;

export type AcceleratorSetting = "auto" | "kvm" | "tcg";

export const settings = {
  /** `PYRO_ACCELERATOR`: `auto` (the default: KVM if a guest really runs under it, else TCG), `kvm` or `tcg`. */
  accelerator(): AcceleratorSetting {
    const value = read("PYRO_ACCELERATOR") ?? "auto";
    if (value === "auto" || value === "kvm" || value === "tcg") return value;
    throw new PyroError("INVALID_ARGUMENT", `PYRO_ACCELERATOR is "${value}"; allowed are auto, kvm and tcg.`, { hint: "Unset PYRO_ACCELERATOR, or set it to one of these." });
  },
  /** `PYRO_KERNEL_DIR`: a directory with `vmlinux` and `modules/` (*.ko files) to use instead of Debian's kernel package. */
  kernelDirectory: () => read("PYRO_KERNEL_DIR"),
  /** `PYRO_QEMU`: the QEMU system emulator, a path or a name in PATH; also a script that starts no process and ends with `exec` of one in /usr or /nix/store. */
  qemu: () => read("PYRO_QEMU") ?? "qemu-system-x86_64",
  /** `PYRO_DEBIAN_MIRROR`: where Debian packages come from. */
  debianMirror: () => read("PYRO_DEBIAN_MIRROR") ?? "http://deb.debian.org/debian",
  /** `PYRO_DEBIAN_SECURITY_MIRROR`: where Debian's security updates come from. */
  debianSecurityMirror: () => read("PYRO_DEBIAN_SECURITY_MIRROR") ?? "http://deb.debian.org/debian-security",
  /** `PYRO_DEBIAN_KEYRING`: the keys that Debian's mirrors sign with, instead of Debian's own. */
  debianKeyring: () => read("PYRO_DEBIAN_KEYRING"),
  /** `PYRO_TEMPLATE_MAX_AGE_SECONDS`: an older template is made anew; 0 makes none and boots every VM. Default a day. */
  templateMaxAgeSeconds(): number {
    const value = read("PYRO_TEMPLATE_MAX_AGE_SECONDS") ?? "86400";
    if (!/^[0-9]{1,9}$/.test(value)) throw new PyroError("INVALID_ARGUMENT", `PYRO_TEMPLATE_MAX_AGE_SECONDS is "${value}"; it is a whole number from 0 to 999999999.`, { hint: "Unset it for a day, or set it to 0 to boot every VM." });
    return Number(value);
  },
  /** `SOURCE_DATE_EPOCH`: seconds since 1970; times in images that are made are clamped to it. */
  sourceDateEpoch(): number | undefined {
    const value = read("SOURCE_DATE_EPOCH");
    if (value === undefined) return undefined;
    if (!/^[0-9]{1,11}$/.test(value)) throw new PyroError("INVALID_ARGUMENT", `SOURCE_DATE_EPOCH is "${value}"; it is a number of seconds since 1970.`);
    return Number(value);
  },
  /** `PYRO_LOG`: `debug` prints what pyro does to standard error. */
  debugLog: () => read("PYRO_LOG") === "debug",
  /** `NO_COLOR`, as https://no-color.org has it. */
  noColor: () => read("NO_COLOR") !== undefined,
  /** The user's proxies, `http_proxy` and its like, for programs that fetch. They may hold a password. */
  proxies: () => readAll(["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"]),
  /** `PYRO_NAME_SERVERS`: whom guests' names are asked of, `ADDRESS` or `ADDRESS:PORT` with commas between them; those of the host's resolv.conf when unset. */
  nameServers: () => (read("PYRO_NAME_SERVERS") ?? "").split(",").map((each) => each.trim()).filter((each) => each !== ""),
  /** Any variable that the user names, as the one that a secret's value is in. */
  secret: (name: string) => read(name),
  /** `PYRO_PLAIN_HTTP_REGISTRIES`: registries that are asked without TLS, `HOST:PORT` with commas between them. */
  plainHttpRegistries: () => (read("PYRO_PLAIN_HTTP_REGISTRIES") ?? "").split(",").map((each) => each.trim().toLowerCase()).filter((each) => each !== ""),
  /** `PYRO_CATALOG`: a file with names of the user's own for images; `pyro-mcp/catalog.json` in XDG_CONFIG_HOME when unset. */
  userCatalog: () => read("PYRO_CATALOG"),
  /** `PYRO_CATALOG_FROM`: what the catalog's environments are made from: `images`, `archive`, or `auto` (the default): the one that can be had, images first. */
  catalogFrom(): "auto" | "images" | "archive" {
    const value = read("PYRO_CATALOG_FROM") ?? "auto";
    if (value === "auto" || value === "images" || value === "archive") return value;
    throw new PyroError("INVALID_ARGUMENT", `PYRO_CATALOG_FROM is "${value}"; allowed are auto, images and archive.`, { hint: "Unset PYRO_CATALOG_FROM, or set it to one of these." });
  },
  /** `PYRO_DOCKER_HUB_MIRROR`: `HOST:PORT` of a registry that is asked instead of Docker Hub, or `HOST:PORT/PATH`. */
  dockerHubMirror: () => read("PYRO_DOCKER_HUB_MIRROR")?.toLowerCase(),
  /** `PYRO_REGISTRY_CA`: a file of certificates (PEM) that registries and proxies may prove themselves with, besides the system's. */
  registryCa: () => read("PYRO_REGISTRY_CA"),
  /** `SSL_CERT_FILE`: the system's certificates, as OpenSSL has it; where the distribution keeps them when unset. */
  systemCertificates: () => read("SSL_CERT_FILE") ?? certificateFiles.find((path) => existsSync(path)) ?? certificateFiles[0],
  /** `DOCKER_CONFIG`: the directory with Docker's config.json, which has the passwords of registries. */
  dockerConfigDirectory: () => read("DOCKER_CONFIG"),
  /** For a program of the user's that keeps passwords: only it knows which variables it needs (a key ring's address, a cloud's keys, a proxy). */
  keyRing: () => readAll(Object.keys(process.env)),
  /** `TERM`: what kind of terminal ours is; undefined for a name that is none of terminfo's. */
  terminalType(): string | undefined {
    const value = read("TERM");
    return value !== undefined && /^[A-Za-z0-9.+-]{1,40}$/.test(value) ? value : undefined;
  },
  /** `OLLAMA_HOST`, as Ollama has it: an address to reach it at; undefined for its default. */
  ollamaHost: () => read("OLLAMA_HOST"),
  /** `CLAUDE_CONFIG_DIR`: where Claude Code keeps its configuration. */
  claudeConfigDirectory: () => readAbsolute("CLAUDE_CONFIG_DIR"),
  /** `CODEX_HOME`: where Codex keeps its configuration. */
  codexHome: () => readAbsolute("CODEX_HOME"),
  home: () => read("HOME"),
  xdgCacheHome: () => readAbsolute("XDG_CACHE_HOME"),
  xdgConfigHome: () => readAbsolute("XDG_CONFIG_HOME"),
  xdgStateHome: () => readAbsolute("XDG_STATE_HOME"),
  path: () => read("PATH") ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
};

/**
 * The environment that child processes get: what they need to find programs, and a locale that makes their messages parseable.
 * Nothing else of the user's environment is handed on, so no secret in it is either.
 */
export function childEnvironment(extra: Record<string, string> = {}): Record<string, string> {
  return { PATH: `${settings.path()}:/usr/sbin:/sbin`, LC_ALL: "C.UTF-8", ...readAll(["HOME", "USER", "LOGNAME", "TMPDIR"]), ...extra };
}

function readAll(names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, read(name)] as const).filter((pair): pair is [string, string] => pair[1] !== undefined));
}

/** Relative paths in XDG's variables are to be ignored (XDG Base Directory Specification, "Basics"). */
function readAbsolute(name: string): string | undefined {
  const value = read(name);
  return value?.startsWith("/") ? value : undefined;
}

function read(name: string): string | undefined {
  const value = process.env[name];
  return value === undefined || value === "" ? undefined : value;
}
