/** What apt's and mmdebstrap's messages mean for whoever waits for packages. */
import { PyroError } from "../base/error.js";
import { harmless } from "../base/harmless.js";
import { settings } from "../base/settings.js";
import { userNamespaceHint } from "./subordinate-ids.js";

/** The error for a program of apt's that failed; `what` began the sentence: "Debian's package lists could not be fetched". */
export function aptError(what: string, stderr: string): PyroError {
  const reason = lastMessages(stderr);
  const message = `${what}: ${reason === "" ? "no reason was given." : reason}`;
  if (/No space left on device|Disk quota exceeded|don't have enough free space/i.test(stderr)) {
    return new PyroError("DISK_FULL", message, { hint: "Free some space: `pyro env prune` removes what is no longer used." });
  }
  if (/NO_PUBKEY|is not signed|GPG error|EXPKEYSIG|BADSIG|signatures? (couldn't|were invalid)|not signed|Hash Sum mismatch|unexpected size/i.test(stderr)) {
    return new PyroError("REGISTRY", message, {
      hint: `What ${withoutPassword(settings.debianMirror())} sent does not carry Debian's signature, so nothing of it was used. Check PYRO_DEBIAN_MIRROR and the proxy settings, and that the package debian-archive-keyring is up to date.`,
    });
  }
  if (/newuidmap|newgidmap|uid_map|unshare failed|subuid|unshare\(\) failed/i.test(stderr)) return new PyroError("DENIED", message, { hint: userNamespaceHint() });
  return new PyroError("REGISTRY", message, { hint: `Check that ${withoutPassword(settings.debianMirror())} can be reached from here; PYRO_DEBIAN_MIRROR and PYRO_DEBIAN_SECURITY_MIRROR name other mirrors.` });
}

/** Addresses without the user and password they may carry: messages, records and images must not have these. */
export function withoutPassword(text: string): string {
  return text.replace(/\/\/[^/\s]*@/g, "//");
}

/** The last lines that say what went wrong, on one line, made harmless. */
function lastMessages(stderr: string): string {
  const lines = withoutPassword(stderr).split("\n").map((line) => harmless(line.replaceAll("\t", " ").trim())).filter((line) => line !== "");
  const errors = lines.filter((line) => /^(E|W|Err)\s*:|error|failed|cannot|unable/i.test(line) && !line.includes("performed unsandboxed"));
  return (errors.length > 0 ? errors.slice(0, 4) : lines.slice(-3)).join(" ").slice(0, 800);
}
