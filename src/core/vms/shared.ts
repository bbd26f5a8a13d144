/** One connection to each VM for all that this process does in it: a guest has few ports, each serves one connection, and making one takes a while. */
import { unlessAborted } from "../../base/deadline.js";
import type { OpenedVm } from "./open.js";

/** How long a connection that nobody uses is kept for the next one, milliseconds. */
const idleMs = 10_000;

interface Connection {
  vm: Promise<OpenedVm>;
  users: number;
  idle?: NodeJS.Timeout;
}

export class SharedVms {
  readonly #connections = new Map<string, Connection>();

  /** Runs `work` in a started VM. Throws NOT_FOUND, INVALID_STATE, GUEST_LOST, CANCELLED. */
  async use<T>(vmId: string, signal: AbortSignal, work: (vm: OpenedVm) => Promise<T>): Promise<T> {
    const connection = this.#connections.get(vmId) ?? this.#connect(vmId);
    connection.users++;
    clearTimeout(connection.idle);
    try {
      return await work(await unlessAborted(connection.vm, signal));
    } finally {
      if (--connection.users === 0) {
        connection.idle = setTimeout(() => this.#forget(vmId, connection), idleMs);
        connection.idle.unref();
      }
    }
  }

  #connect(vmId: string): Connection {
    const connection: Connection = { vm: import("./open.js").then(({ attachVm }) => attachVm(vmId)), users: 0 };
    this.#connections.set(vmId, connection);
    const forget = () => this.#forget(vmId, connection);
    connection.vm.then((vm) => vm.channel.closed.then(forget), forget); // a broken one is of no use to the next user
    return connection;
  }

  #forget(vmId: string, connection: Connection): void {
    clearTimeout(connection.idle);
    if (this.#connections.get(vmId) === connection) this.#connections.delete(vmId);
    connection.vm.then((vm) => vm.close()).catch(() => {});
  }
}
