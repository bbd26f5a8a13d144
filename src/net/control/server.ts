/** Answers those who run the gateway: JSON lines, a request each. */
import type { Duplex } from "node:stream";
import { PyroError, toPyroError } from "../../base/error.js";
import type { AuditRecord } from "../audit.js";
import { JsonLines } from "./json-lines.js";

/** Connections at once. */
export const maxClients = 16;
/** A listener that has as much unread misses events. */
const maxUnreadEventBytes = 1024 * 1024;

/** A method gets its parameters, whatever they are, and throws a PyroError where they are not what it takes. */
export type Methods = Record<string, (params: Record<string, unknown>) => unknown>;

export class ControlServer {
  readonly #methods: Methods;
  readonly #clients = new Set<Duplex>();
  /** And of which types of records each wants to hear; undefined for all. */
  readonly #listeners = new Map<JsonLines, ReadonlySet<unknown> | undefined>();

  constructor(methods: Methods) {
    this.#methods = methods;
  }

  /** Serves a connection; `more` are methods that it alone has. */
  serve(stream: Duplex, more: Methods = {}): void {
    if (this.#clients.size >= maxClients) return void stream.destroy();
    this.#clients.add(stream);
    const methods: Methods = { ...this.#methods, ...more, events: ({ types }) => (this.#listeners.set(lines, Array.isArray(types) ? new Set(types) : undefined), {}) };
    // In order: what is asked for second must not overtake.
    let last: Promise<void> = Promise.resolve();
    const lines: JsonLines = new JsonLines(stream, (request) => {
      last = last.then(async () => lines.write(await answer(request, methods)));
    });
    stream.on("close", () => {
      this.#clients.delete(stream);
      this.#listeners.delete(lines);
    });
  }

  tell(record: AuditRecord): void {
    for (const [lines, types] of this.#listeners) {
      if (types !== undefined && !types.has(record.type)) continue;
      if (lines.waitingBytes <= maxUnreadEventBytes) lines.write({ event: record.type, ...record });
    }
  }
}

async function answer(request: unknown, methods: Methods): Promise<unknown> {
  const { id, method, params } = isRecord(request) ? request : {};
  try {
    const known = typeof method === "string" && Object.hasOwn(methods, method) ? methods[method] : undefined;
    if (known === undefined) throw new PyroError("INVALID_ARGUMENT", "The gateway has no such method.");
    if (params !== undefined && !isRecord(params)) throw new PyroError("INVALID_ARGUMENT", "The parameters are an object.");
    return { id, result: (await known(params ?? {})) ?? {} };
  } catch (error) {
    return { id, error: toPyroError(error).toJSON() };
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
