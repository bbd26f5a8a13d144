/** The keys that Debian's archive signs with. */
import { existsSync } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { PyroError } from "../../base/error.js";
import { packageRoot } from "../../base/paths.js";
import { settings } from "../../base/settings.js";

/** Where Debian itself has them, in guests too. */
export const debiansKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** The user's, Debian's, or for hosts that are none the keys of Debian 12 that come along (docs/dependencies.md). */
export function keyring(): string {
  return settings.debianKeyring() ?? (existsSync(debiansKeyring) ? debiansKeyring : join(packageRoot, "keys/debian-12.gpg"));
}

/** Throws HOST_MISSING when there are no keys to check the archive's signature with. */
export async function checkKeyring(): Promise<void> {
  const path = keyring();
  await access(path).catch((cause: unknown) => {
    throw new PyroError("HOST_MISSING", `Debian's archive keys are not there: no ${path}.`, { hint: settings.debianKeyring() === undefined ? "Install pyro again." : "PYRO_DEBIAN_KEYRING names a file of keys; unset it for Debian's own.", cause });
  });
}
