/** Asks the host's resolvers for a guest. Node's own resolver, c-ares, does the wire's part: its answers are checked, and it goes on to TCP by itself. */
import { Resolver } from "node:dns/promises";
import { systemCode } from "../../base/error.js";
import { RecordType, ResponseCode, encodeName, type DnsRecord } from "./message.js";

export interface Resolution {
  code: number;
  records: DnsRecord[];
  /** Of an A: dotted, in the order of `records`. */
  addresses: string[];
}

/** The guest asks again soon, so that a name which moves is seen to move. */
const maxTtlSeconds = 60;
const maxRecords = 64;
/** Of one try; c-ares doubles it with each. */
const timeoutMs = 3_000;
const tries = 3;

export class UpstreamResolver {
  readonly #resolver = new Resolver({ timeout: timeoutMs, tries });

  /** `servers` are `address` or `address:port`; none for those of the host's resolv.conf. */
  constructor(servers: readonly string[] | undefined) {
    if (servers !== undefined && servers.length > 0) this.#resolver.setServers(servers);
  }

  /** Never rejects. What has no type here is answered as a name that has no such record. */
  async resolve(name: string, type: number): Promise<Resolution> {
    try {
      if (type === RecordType.A) return ofAddresses(await this.#resolver.resolve4(name, { ttl: true }));
      return { code: ResponseCode.ok, records: await this.#others(name, type), addresses: [] };
    } catch (error) {
      return { code: codeOf(systemCode(error)), records: [], addresses: [] };
    }
  }

  async #others(name: string, type: number): Promise<DnsRecord[]> {
    const resolver = this.#resolver;
    const toRecords = (all: readonly (Buffer | undefined)[]) => all.filter((data) => data !== undefined).slice(0, maxRecords).map((data) => ({ type, ttlSeconds: maxTtlSeconds, data }));
    switch (type) {
      case RecordType.TXT: return toRecords((await resolver.resolveTxt(name)).map(encodeText));
      case RecordType.MX: return toRecords((await resolver.resolveMx(name)).map(({ priority, exchange }) => withNumbers([priority], exchange)));
      case RecordType.SRV: return toRecords((await resolver.resolveSrv(name)).map((each) => withNumbers([each.priority, each.weight, each.port], each.name)));
      case RecordType.PTR: return toRecords((await resolver.resolvePtr(name)).map(encodeName));
      case RecordType.NS: return toRecords((await resolver.resolveNs(name)).map(encodeName));
      case RecordType.CNAME: return toRecords((await resolver.resolveCname(name)).map(encodeName));
      default: return [];
    }
  }
}

function ofAddresses(found: readonly { address: string; ttl: number }[]): Resolution {
  const addresses: string[] = [];
  const records = found.slice(0, maxRecords).map(({ address, ttl }) => {
    addresses.push(address);
    return { type: RecordType.A, ttlSeconds: Math.min(Math.max(0, ttl), maxTtlSeconds), data: Buffer.from(address.split(".").map(Number)) };
  });
  return { code: ResponseCode.ok, records, addresses };
}

function codeOf(error: string | undefined): number {
  if (error === "ENOTFOUND" || error === "EBADNAME") return ResponseCode.noSuchName;
  return error === "ENODATA" ? ResponseCode.ok : ResponseCode.serverFailure;
}

function encodeText(strings: readonly string[]): Buffer {
  return Buffer.concat(strings.flatMap((text) => {
    const bytes = Buffer.from(text, "utf8").subarray(0, 255);
    return [Buffer.from([bytes.length]), bytes];
  }));
}

function withNumbers(numbers: readonly number[], name: string): Buffer | undefined {
  const encoded = encodeName(name);
  return encoded && Buffer.concat([Buffer.from(numbers.flatMap((number) => [number >>> 8, number & 255])), encoded]);
}
