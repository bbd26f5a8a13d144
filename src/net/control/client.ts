/** The far end of a gateway's control connection. */
import { EventEmitter } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { withDeadline } from "../../base/deadline.js";
import { PyroError, errorCodes, type ErrorCode } from "../../base/error.js";
import { JsonLines } from "./json-lines.js";
import type { GatewayConfiguration, GatewayConfigured, GatewayEvent, GatewayInfo, PublishRequest } from "./messages.js";

/** In a VM's place, the gateway's listening socket. */
export const gatewaySocketName = "net";

/** A gateway answers at once; one that does not is stopped. */
const answerMs = 30_000;

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** Emits `event` with a GatewayEvent, after `listen`, and `close`. Every method throws VMM_EXITED when the gateway is gone, TIMEOUT when it is stopped. */
export class GatewayControl extends EventEmitter<{ event: [GatewayEvent]; close: [] }> {
  readonly #stream: Duplex;
  readonly #lines: JsonLines;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;

  constructor(stream: Duplex) {
    super();
    this.#stream = stream;
    this.#lines = new JsonLines(stream, (value) => this.#take(value as Answer));
    stream.on("close", () => {
      for (const { reject } of this.#pending.values()) reject(gone());
      this.#pending.clear();
      this.emit("close");
    });
  }

  /** Comes first, and once. Throws INVALID_ARGUMENT, EXISTS where a port is taken, DENIED. */
  async configure(configuration: GatewayConfiguration): Promise<GatewayConfigured> {
    return (await this.#ask("configure", configuration)) as GatewayConfigured;
  }

  /** Replaces the policy; connections that it does not allow are reset. Throws INVALID_ARGUMENT. */
  async setPolicy(policy: unknown): Promise<void> {
    await this.#ask("policy", { policy });
  }

  /** Gives the port that was taken. Throws EXISTS, DENIED. */
  async publish(request: PublishRequest): Promise<PublishRequest> {
    return (await this.#ask("publish", request)) as PublishRequest;
  }

  /** Throws NOT_FOUND. */
  async unpublish(request: Pick<PublishRequest, "protocol" | "host_ip" | "host_port">): Promise<void> {
    await this.#ask("unpublish", request);
  }

  async info(): Promise<GatewayInfo> {
    return (await this.#ask("info", {})) as GatewayInfo;
  }

  /** From now on `event` is emitted for every record of the audit, or those of these types alone: what nobody wants to hear is not sent. */
  async listen(types?: readonly GatewayEvent["type"][]): Promise<void> {
    await this.#ask("events", types === undefined ? {} : { types });
  }

  close(): void {
    this.#stream.destroy();
  }

  #ask(method: string, params: unknown): Promise<unknown> {
    if (this.#stream.destroyed) return Promise.reject(gone());
    const id = ++this.#lastId;
    const answer = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    this.#lines.write({ id, method, params });
    return withDeadline(answer, answerMs, "That the VM's network gateway would answer").finally(() => this.#pending.delete(id));
  }

  #take(answer: Answer): void {
    if (answer.event !== undefined) return void this.emit("event", answer as GatewayEvent);
    const pending = this.#pending.get(answer.id!);
    this.#pending.delete(answer.id!);
    if (answer.error === undefined) return pending?.resolve(answer.result);
    const { code, message, hint } = answer.error;
    pending?.reject(new PyroError(code in errorCodes ? code : "INTERNAL", message, hint === undefined ? {} : { hint }));
  }
}

interface Answer {
  event?: string;
  id?: number;
  result?: unknown;
  error?: { code: ErrorCode; message: string; hint?: string };
}

/** Connects to the gateway of a VM that others than its maker use. Throws NOT_FOUND if it has none, or it is gone. */
export async function connectGateway(place: string): Promise<GatewayControl> {
  const socket = connect(join(place, gatewaySocketName));
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", (cause) => reject(new PyroError("NOT_FOUND", `The VM in ${place} has no network gateway.`, { cause, hint: "Its network is off, or its gateway ended." })));
  });
  return new GatewayControl(socket);
}

function gone(): PyroError {
  return new PyroError("VMM_EXITED", "The VM's network gateway ended.");
}
