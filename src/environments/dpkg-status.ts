/** The packages that dpkg's status file (deb822, dpkg(1)) says are installed. */
import { PyroError } from "../base/error.js";
import { manifestLimits } from "./manifest.js";

export const maxStatusBytes = 32 << 20;

export interface InstalledPackage {
  name: string;
  version: string;
}

/** Sorted by name. Paragraphs that don't look as dpkg writes them are left out: this is for people to read, nothing depends on it. */
export function parseDpkgStatus(text: string): InstalledPackage[] {
  const packages: InstalledPackage[] = [];
  let name: string | undefined;
  let version: string | undefined;
  let installed = false;
  const close = () => {
    if (name !== undefined && version !== undefined && installed) packages.push({ name, version });
    if (packages.length > manifestLimits.packages) throw new PyroError("ENVIRONMENT_INVALID", `More than ${manifestLimits.packages} packages are installed.`);
    name = version = undefined;
    installed = false;
  };
  for (const line of text.split("\n")) {
    if (line === "") close();
    else if (line.startsWith("Package: ")) name = value(line, /^[a-z0-9][a-z0-9.+-]{0,199}$/);
    else if (line.startsWith("Version: ")) version = value(line, /^[A-Za-z0-9.+~:-]{1,200}$/);
    else if (line.startsWith("Status: ")) installed = line.endsWith(" installed");
  }
  close();
  return packages.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function value(line: string, pattern: RegExp): string | undefined {
  const text = line.slice(line.indexOf(":") + 2);
  return pattern.test(text) ? text : undefined;
}
