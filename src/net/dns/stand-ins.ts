/**
 * Addresses for names that only a proxy can resolve, as in many a company: the guest has to connect to something, and it is the name that the proxy
 * is asked for. They are of 198.18.0.0/15 (RFC 2544), where nobody is.
 */
import { parseAddress, showAddress } from "../addresses.js";

const base = 0xc6120000;
const count = 2 ** 17;

export const standInLimits = { maxNames: 8192 } as const;

export class StandIns {
  readonly #byName = new Map<string, number>();
  readonly #byAddress = new Map<number, string>();
  #next = 1;

  /**
   * Whether a name may have one: a proxy takes what looks like an address for that, and `localhost` for itself. What else its names lead to is its own affair.
   * `name` is in lower case.
   */
  static areFor(name: string): boolean {
    const labels = name.split(".");
    if (!labels.every((label) => /^[a-z0-9_-]{1,63}$/.test(label))) return false;
    const last = labels.at(-1)!;
    return last !== "localhost" && !/^(?:[0-9]+|0x[0-9a-f]*)$/.test(last); // WHATWG URL: "ends in a number"
  }

  /** The same for the same name, until thousands of others were asked for since. */
  addressFor(name: string): string {
    const known = this.#byName.get(name);
    this.#byName.delete(name);
    const address = known ?? this.#take();
    this.#byName.set(name, address);
    this.#byAddress.set(address, name);
    return showAddress(address);
  }

  has(address: string): boolean {
    const number = parseAddress(address);
    return number !== undefined && this.#byAddress.has(number);
  }

  #take(): number {
    const [oldest] = this.#byName;
    if (oldest !== undefined && this.#byName.size >= standInLimits.maxNames) {
      this.#byName.delete(oldest[0]);
      this.#byAddress.delete(oldest[1]);
    }
    do this.#next = (this.#next + 1) % count;
    while (this.#byAddress.has(base + this.#next));
    return base + this.#next;
  }
}
