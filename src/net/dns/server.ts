/** The guest's resolver: what may be asked is the policy's to say, what comes back is checked and remembered. */
import { isOwnAddress } from "../addresses.js";
import type { Audit } from "../audit.js";
import type { Decision, PolicyHook } from "../policy-hook.js";
import { RecordType, ResponseCode, encodeAnswer, encodeError, fitDatagram, parseQuestion, typeName, type Question } from "./message.js";
import type { ResolvedNames } from "./names.js";
import type { Resolution } from "./resolver.js";

/** Questions that are being answered at once. A guest that asks more is told that the server fails, as it may ask again. */
const maxOpenQuestions = 256;

export interface DnsServerOptions {
  hook(): PolicyHook;
  audit: Audit;
  names: ResolvedNames;
  resolve(name: string, type: number): Promise<Resolution>;
}

export class DnsServer {
  readonly #options: DnsServerOptions;
  #open = 0;

  constructor(options: DnsServerOptions) {
    this.#options = options;
  }

  /** The answer to a message; undefined for one that has none. `stream` for a message that came over TCP. Never rejects. */
  async answer(message: Buffer, stream = false): Promise<Buffer | undefined> {
    const question = parseQuestion(message);
    if (question === undefined) return undefined;
    if ("code" in question) return encodeError(question.id, question.code);
    if (this.#open >= maxOpenQuestions) return encodeAnswer(question, ResponseCode.serverFailure);
    this.#open++;
    try {
      const answer = await this.#answer(question);
      return stream ? answer : fitDatagram(answer, question);
    } finally {
      this.#open--;
    }
  }

  async #answer(question: Question): Promise<Buffer> {
    const { name } = question;
    const { audit } = this.#options;
    const type = typeName(question.type);
    audit.count("dnsQueries");
    const decision = this.#options.hook().name({ name, type });
    if (!decision.allowed) return this.#refuse(question, decision);
    // There is no IPv6, and the parameters of HTTPS records would lead past the names: both are said to be absent at once.
    if (question.type === RecordType.AAAA || question.type === RecordType.HTTPS || question.type === RecordType.SVCB) return encodeAnswer(question, ResponseCode.ok);
    const resolution = await this.#options.resolve(name, question.type);
    const allowed = resolution.addresses.map((address) => this.#options.hook().address({ name, address, own: isOwnAddress(address) }));
    const firstRefusal = allowed.findIndex((each) => !each.allowed);
    const records = resolution.records.filter((_, index) => allowed[index]?.allowed !== false);
    if (records.length === 0 && firstRefusal >= 0) return this.#refuse(question, allowed[firstRefusal]!, resolution.addresses[firstRefusal]);
    resolution.addresses.forEach((address, index) => allowed[index]!.allowed && this.#options.names.add(address, name));
    audit.write({ type: "dns", protocol: "dns", name, rule: decision.rule, query: type, ...(resolution.code !== ResponseCode.ok && { reason: resolution.code === ResponseCode.noSuchName ? "no such name" : "the resolver failed" }) });
    return encodeAnswer(question, resolution.code, records);
  }

  #refuse(question: Question, { rule, reason }: Decision, address?: string): Buffer {
    this.#options.audit.write({ type: "refused", protocol: "dns", name: question.name, query: typeName(question.type), ...(address !== undefined && { address }), rule, ...(reason !== undefined && { reason }) });
    return encodeAnswer(question, ResponseCode.noSuchName);
  }
}
