/** Which names the guest has resolved to which address: what a connection to an address is judged by. Bounded; what was used longest ago goes first. */

export const nameLimits = { maxAddresses: 8192, maxNamesPerAddress: 32 } as const;

const nobody: readonly string[] = [];

export class ResolvedNames {
  readonly #byAddress = new Map<string, string[]>();

  add(address: string, name: string): void {
    const names = [name, ...(this.#byAddress.get(address) ?? []).filter((each) => each !== name)];
    this.#byAddress.delete(address);
    this.#byAddress.set(address, names.slice(0, nameLimits.maxNamesPerAddress));
    if (this.#byAddress.size <= nameLimits.maxAddresses) return;
    const [oldest] = this.#byAddress.keys();
    this.#byAddress.delete(oldest!);
  }

  /** The latest first. */
  of(address: string): readonly string[] {
    const names = this.#byAddress.get(address);
    if (names === undefined) return nobody;
    this.#byAddress.delete(address); // in use: to the end of the line
    this.#byAddress.set(address, names);
    return names;
  }
}
