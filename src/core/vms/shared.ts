/** One connection to each VM for all that this process does in it at the same time: a guest has few ports, and each serves one connection. */
import { cancelled } from "../../base/deadline.js";
import type { OpenedVm } from "./open.js";

interface Connection {
  vm: Promise<OpenedVm>;
  users: number;
}

export class SharedVms {
  readonly #connections = new Map<string, Connection>();

  /** Runs `work` in a started VM; the connection lasts as long as somebody uses it. Throws NOT_FOUND, INVALID_STATE, GUEST_LOST, CANCELLED. */
  async use<T>(vmId: string, signal: AbortSignal, work: (vm: OpenedVm) => Promise<T>): Promise<T> {
    const connection = this.#connections.get(vmId) ?? this.#connect(vmId);
    connection.users++;
    try {
      return await work(await unlessAborted(connection.vm, signal));
    } finally {
      if (--connection.users === 0) {
        this.#forget(vmId, connection);
        connection.vm.then((vm) => vm.close()).catch(() => {});
      }
    }
  }

  #connect(vmId: string): Connection {
    const connection = { vm: import("./open.js").then(({ attachVm }) => attachVm(vmId)), users: 0 };
    this.#connections.set(vmId, connection);
    const forget = () => this.#forget(vmId, connection);
    connection.vm.then((vm) => vm.channel.closed.then(forget), forget); // a broken one is of no use to the next user
    return connection;
  }

  #forget(vmId: string, connection: Connection): void {
    if (this.#connections.get(vmId) === connection) this.#connections.delete(vmId);
  }
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(cancelled(signal));
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
