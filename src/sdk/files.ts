import type { Readable } from "node:stream";
import { readWhole, type Change, type GuestEntry, type GuestPath, type GuestStat, type OpenedVm } from "../core/index.js";

/** What can be broken off: rejects with CANCELLED then. */
export interface Abortable {
  signal?: AbortSignal;
}

/** The files of a running VM. Paths are the guest's: text as UTF-8, or bytes as they are. All reject with NOT_FOUND, EXISTS, DENIED, INVALID_STATE, GUEST_LOST or CANCELLED. */
export class GuestFiles {
  readonly #vm: OpenedVm;

  private constructor(vm: OpenedVm) {
    this.#vm = vm;
  }

  /** @internal What `Vm.files` is. */
  static of(vm: OpenedVm): GuestFiles {
    return new GuestFiles(vm);
  }

  /** The whole file; INVALID_STATE above `maxBytes` (default 64 MiB). */
  async read(path: GuestPath, options: Abortable & { maxBytes?: number } = {}): Promise<Buffer> {
    return readWhole(this.#vm.channel, path, options.maxBytes ?? 64 << 20, options.signal);
  }

  /** Its bytes as they come; destroying the stream stops the reading. `offset` and `length` are bytes. */
  stream(path: GuestPath, options: Abortable & { offset?: number; length?: number } = {}): Readable {
    return this.#vm.channel.readFile(path, options);
  }

  /** Replaces the file when all has arrived, or makes it; a broken-off write leaves it as it was. `mode` is 0 to 0o7777. */
  async write(path: GuestPath, content: string | Uint8Array | AsyncIterable<Uint8Array>, options: Abortable & { mode?: number; makeParents?: boolean; exclusive?: boolean } = {}): Promise<void> {
    await this.#vm.channel.writeFile(path, typeof content === "string" ? Buffer.from(content) : content, options);
  }

  /** Writes behind what is there, in place. */
  async append(path: GuestPath, content: string | Uint8Array | AsyncIterable<Uint8Array>, options: Abortable & { mode?: number; makeParents?: boolean } = {}): Promise<void> {
    await this.#vm.channel.writeFile(path, typeof content === "string" ? Buffer.from(content) : content, { ...options, append: true });
  }

  /** What is in a directory, unsorted, without `.` and `..`. */
  async list(path: GuestPath, options: Abortable = {}): Promise<GuestEntry[]> {
    return this.#vm.channel.list(path, options);
  }

  /** Type, mode, owner, size, time; of a link itself, unless `follow`. */
  async stat(path: GuestPath, options: Abortable & { follow?: boolean } = {}): Promise<GuestStat> {
    return this.#vm.channel.stat(path, options);
  }

  /** `mode` is 0 to 0o7777, 0o755 when left out. */
  async makeDirectory(path: GuestPath, options: Abortable & { mode?: number; makeParents?: boolean } = {}): Promise<void> {
    await this.#vm.channel.makeDirectory(path, options);
  }

  /** A file, a link, an empty directory; with `recursive` a directory with all in it. */
  async remove(path: GuestPath, options: Abortable & { recursive?: boolean } = {}): Promise<void> {
    await this.#vm.channel.remove(path, options);
  }

  /** Replaces what `to` names, or with `exclusive` fails with EXISTS. */
  async rename(from: GuestPath, to: GuestPath, options: Abortable & { exclusive?: boolean } = {}): Promise<void> {
    await this.#vm.channel.rename(from, to, options);
  }

  /** Mode, owner and time of what is there. */
  async change(path: GuestPath, change: Change, options: Abortable = {}): Promise<void> {
    await this.#vm.channel.change(path, change, options);
  }

  /** Permission bits, 0 to 0o7777; links are followed, as chmod(1) does. */
  async chmod(path: GuestPath, mode: number, options: Abortable = {}): Promise<void> {
    await this.#vm.channel.change(path, { mode, follow: true }, options);
  }

  /** A link at `path`: a symbolic one to any text, a hard one to what exists. */
  async makeLink(path: GuestPath, target: GuestPath, options: Abortable & { hard?: boolean } = {}): Promise<void> {
    await this.#vm.channel.makeLink(path, target, options);
  }
}
