/** Secrets that the guest uses and never sees: it has placeholders, and the real value goes into the headers of requests to the one host that it is for. */
import { PyroError } from "../../base/error.js";
import type { GatewaySecret } from "../control/messages.js";
import type { RequestHead } from "../inspect/request-head.js";

export const secretLimits = {
  maxSecrets: 64,
  maxValueBytes: 16_384,
  /** A shorter placeholder would be found by chance. */
  minPlaceholderChars: 16,
  maxPlaceholderChars: 256,
} as const;

/** Throws INVALID_ARGUMENT. The value is in no message. */
export function checkSecrets(secrets: readonly GatewaySecret[]): readonly GatewaySecret[] {
  if (!Array.isArray(secrets) || secrets.length > secretLimits.maxSecrets) throw new PyroError("INVALID_ARGUMENT", `At most ${secretLimits.maxSecrets} secrets are possible (maxSecrets).`);
  for (const { name, host, value, placeholder } of secrets) {
    if (typeof name !== "string" || typeof host !== "string" || !/^[a-z0-9_.-]{1,253}$/i.test(host)) throw new PyroError("INVALID_ARGUMENT", "A secret has a name, and a host like api.example.org.");
    const wrong = (why: string) => new PyroError("INVALID_ARGUMENT", `Secret ${name} can't be put into a header: ${why}.`);
    if (typeof value !== "string" || value === "") throw wrong("it is empty");
    if (Buffer.byteLength(value) > secretLimits.maxValueBytes) throw wrong(`it is longer than ${secretLimits.maxValueBytes} bytes (maxValueBytes)`);
    if (/[\x00-\x1f\x7f]/.test(value)) throw wrong("it has a control character in it, a line's end perhaps");
    if (typeof placeholder !== "string" || !/^[!-~]+$/.test(placeholder) || placeholder.length < secretLimits.minPlaceholderChars || placeholder.length > secretLimits.maxPlaceholderChars) throw wrong(`its placeholder is not of ${secretLimits.minPlaceholderChars} to ${secretLimits.maxPlaceholderChars} printable characters`);
  }
  return secrets;
}

export interface PutIn {
  /** The names of those that were put in. */
  used: string[];
  /** The name of one that is for another host: the request must not go out. */
  misplaced?: string;
}

export class Secrets {
  readonly #secrets: readonly GatewaySecret[];

  constructor(secrets: readonly GatewaySecret[]) {
    this.#secrets = secrets.map((each) => ({ ...each, host: each.host.toLowerCase() }));
  }

  get isEmpty(): boolean {
    return this.#secrets.length === 0;
  }

  isFor(host: string): boolean {
    return this.#secrets.some((secret) => secret.host === host);
  }

  /** Puts in what is for `host`; undefined for a connection of which the host is not known for certain. */
  putIn(head: RequestHead, host: string | undefined): PutIn {
    const used = new Set<string>();
    // Those that are for it first: a secret for two hosts is two of them with one placeholder.
    for (const secret of [...this.#for(host), ...this.#notFor(host)]) {
      const isHere = secret.host === host;
      if (!isHere && head.target.includes(secret.placeholder)) return { used: [], misplaced: secret.name };
      for (const header of head.headers) {
        const replaced = replaceIn(header, secret);
        if (replaced === undefined) continue;
        if (!isHere) return { used: [], misplaced: secret.name };
        header[1] = replaced;
        used.add(secret.name);
      }
    }
    return { used: [...used] };
  }

  /** Finds placeholders in a stream of bytes that goes elsewhere than to `host`. */
  watcher(host: string | undefined): PlaceholderWatcher | undefined {
    const foreign = this.#notFor(host);
    return foreign.length === 0 ? undefined : new PlaceholderWatcher(foreign);
  }

  #for(host: string | undefined): readonly GatewaySecret[] {
    return this.#secrets.filter((secret) => secret.host === host);
  }

  /** Without those that are for it as well. */
  #notFor(host: string | undefined): readonly GatewaySecret[] {
    const own = new Set(this.#for(host).map(({ placeholder }) => placeholder));
    return this.#secrets.filter(({ placeholder }) => !own.has(placeholder));
  }

  /** The name of a secret whose placeholder is in `text`, in whatever case. */
  mentionedIn(text: string): string | undefined {
    const lower = text.toLowerCase();
    return this.#secrets.find(({ placeholder }) => lower.includes(placeholder.toLowerCase()))?.name;
  }
}

export class PlaceholderWatcher {
  readonly #secrets: readonly { name: string; placeholder: Buffer }[];
  readonly #longest: number;
  /** The end of what came before, in which one may have begun. */
  #tail: Buffer = Buffer.alloc(0);

  constructor(secrets: readonly GatewaySecret[]) {
    this.#secrets = secrets.map(({ name, placeholder }) => ({ name, placeholder: Buffer.from(placeholder, "latin1") }));
    this.#longest = Math.max(...this.#secrets.map(({ placeholder }) => placeholder.length));
  }

  /** The name of a secret whose placeholder ends in `bytes`. */
  find(bytes: Buffer, start = 0, end = bytes.length): string | undefined {
    const seam = Buffer.concat([this.#tail, bytes.subarray(start, Math.min(end, start + this.#longest - 1))]);
    const view = bytes.subarray(start, end);
    const found = this.#secrets.find(({ placeholder }) => view.includes(placeholder) || seam.includes(placeholder));
    const last = view.length >= this.#longest ? view : Buffer.concat([this.#tail, view]);
    this.#tail = Buffer.from(last.subarray(Math.max(0, last.length - this.#longest + 1)));
    return found?.name;
  }
}

/** The header's value with the secret in it; undefined if the placeholder is not there. Basic credentials are looked into (RFC 7617), as git sends tokens so. */
function replaceIn([name, value]: [string, string], { placeholder, value: secret }: GatewaySecret): string | undefined {
  const bytes = Buffer.from(secret, "utf8").toString("latin1");
  if (value.includes(placeholder)) return value.replaceAll(placeholder, () => bytes);
  const basic = /^(basic +)([A-Za-z0-9+/=]+)$/i.exec(value);
  if (basic === null || !/^(?:proxy-)?authorization$/i.test(name)) return undefined;
  const decoded = Buffer.from(basic[2]!, "base64").toString("latin1");
  if (!decoded.includes(placeholder)) return undefined;
  return basic[1]! + Buffer.from(decoded.replaceAll(placeholder, () => bytes), "latin1").toString("base64");
}
