/** The host's own table of names (hosts(5)), which comes before any resolver here as it does for the host's programs. */
import { readFileSync, statSync } from "node:fs";
import { parseAddress } from "../addresses.js";

/** A longer one is not read. */
const maxBytes = 1024 * 1024;
const maxAddresses = 16;

export class HostsFile {
  readonly #path: string;
  #stamp = "";
  #byName = new Map<string, string[]>();

  constructor(path = "/etc/hosts") {
    this.#path = path;
  }

  /** The IPv4 addresses of `name`, which is in lower case; undefined if the table does not have it. Read anew when it was changed. */
  addressesOf(name: string): readonly string[] | undefined {
    try {
      const { mtimeMs, size, ino } = statSync(this.#path);
      const stamp = `${mtimeMs} ${size} ${ino}`;
      if (stamp !== this.#stamp) {
        this.#byName = size > maxBytes ? new Map<string, string[]>() : parseHosts(readFileSync(this.#path, "utf8"));
        this.#stamp = stamp;
      }
    } catch {
      this.#byName.clear(); // there is none
      this.#stamp = "";
    }
    return this.#byName.get(name);
  }
}

export function parseHosts(text: string): Map<string, string[]> {
  const byName = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const [address, ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (address === undefined || parseAddress(address) === undefined) continue;
    for (const name of names.map((each) => each.toLowerCase())) {
      const known = byName.get(name);
      if (known === undefined) byName.set(name, [address]);
      else if (known.length < maxAddresses && !known.includes(address)) known.push(address);
    }
  }
  return byName;
}
