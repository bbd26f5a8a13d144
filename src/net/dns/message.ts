/** DNS messages (RFC 1035): the guest's question, and our answer to it. */

export const RecordType = { A: 1, NS: 2, CNAME: 5, PTR: 12, MX: 15, TXT: 16, AAAA: 28, SRV: 33, OPT: 41, SVCB: 64, HTTPS: 65 } as const;
export const ResponseCode = { ok: 0, formatError: 1, serverFailure: 2, noSuchName: 3, notImplemented: 4, refused: 5 } as const;

const typeNames = new Map<number, string>(Object.entries(RecordType).map(([name, number]) => [number, name]));
const headerBytes = 12;
const maxNameBytes = 255;
const internetClass = 1;
/** What a client takes that says nothing of it (RFC 1035, 4.2.1), and what we send in a datagram at most. */
const plainDatagramBytes = 512;
const maxDatagramBytes = 4096;
export const maxMessageBytes = 65_535;

export interface Question {
  id: number;
  /** Lower case, without the last dot; empty for the root. */
  name: string;
  type: number;
  recursionDesired: boolean;
  /** The question as it came, to be given back: some clients mix upper and lower case and look for it. */
  section: Buffer;
  /** Whether the client speaks EDNS (RFC 6891), and how long a datagram it takes. */
  edns: boolean;
  maxBytes: number;
}

export interface DnsRecord {
  type: number;
  ttlSeconds: number;
  data: Buffer;
}

/** `A`, `TXT` …; `TYPE64` for one without a name here (RFC 3597). */
export function typeName(type: number): string {
  return typeNames.get(type) ?? `TYPE${type}`;
}

/** Undefined for what can't be answered at all; `formatError` for what can be, but is no question. */
export function parseQuestion(message: Buffer): Question | { id: number; code: number } | undefined {
  if (message.length < headerBytes) return undefined;
  const id = message.readUInt16BE(0);
  const flags = message.readUInt16BE(2);
  if ((flags & 0x8000) !== 0) return undefined; // an answer
  if ((flags & 0x7800) !== 0) return { id, code: ResponseCode.notImplemented };
  if (message.readUInt16BE(4) !== 1) return { id, code: ResponseCode.formatError };
  const parsed = parseName(message, headerBytes);
  if (parsed === undefined || parsed.end + 4 > message.length) return { id, code: ResponseCode.formatError };
  if (message.readUInt16BE(parsed.end + 2) !== internetClass) return { id, code: ResponseCode.notImplemented };
  const type = message.readUInt16BE(parsed.end);
  if (type !== RecordType.PTR && parsed.name.includes("/")) return { id, code: ResponseCode.formatError }; // parts of networks have one (RFC 2317), and nobody else
  const sectionEnd = parsed.end + 4;
  const { edns, maxBytes } = parseEdns(message, sectionEnd);
  return {
    id,
    name: parsed.name,
    type,
    recursionDesired: (flags & 0x0100) !== 0,
    section: Buffer.from(message.subarray(headerBytes, sectionEnd)),
    edns,
    maxBytes,
  };
}

export function encodeAnswer(question: Question, code: number, records: readonly DnsRecord[] = []): Buffer {
  const head = Buffer.alloc(headerBytes);
  head.writeUInt16BE(question.id, 0);
  head.writeUInt16BE(0x8080 | (question.recursionDesired ? 0x0100 : 0) | code, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(records.length, 6);
  head.writeUInt16BE(question.edns ? 1 : 0, 10);
  const parts = records.map(({ type, ttlSeconds, data }) => {
    const part = Buffer.alloc(12);
    part.writeUInt16BE(0xc000 | headerBytes, 0); // the name asked for
    part.writeUInt16BE(type, 2);
    part.writeUInt16BE(internetClass, 4);
    part.writeUInt32BE(ttlSeconds, 6);
    part.writeUInt16BE(data.length, 10);
    return Buffer.concat([part, data]);
  });
  return Buffer.concat([head, question.section, ...parts, ...(question.edns ? [optRecord()] : [])]);
}

/** The answer as a datagram: cut to its question, and said to be, where it does not fit (RFC 2181, 9). */
export function fitDatagram(answer: Buffer, { section, maxBytes }: Question): Buffer {
  if (answer.length <= maxBytes) return answer;
  const cut = Buffer.from(answer.subarray(0, headerBytes + section.length));
  cut.writeUInt16BE(cut.readUInt16BE(2) | 0x0200, 2);
  cut.fill(0, 6, headerBytes);
  return cut;
}

export function encodeError(id: number, code: number): Buffer {
  const head = Buffer.alloc(headerBytes);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE(0x8080 | code, 2);
  return head;
}

/** A name as records hold it; undefined if it is none. Not compressed. */
export function encodeName(name: string): Buffer | undefined {
  const labels = name.replace(/\.$/, "").split(".").filter((label) => label !== "");
  const parts = labels.map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label, "latin1")]));
  const encoded = Buffer.concat([...parts, Buffer.from([0])]);
  return labels.some((label) => label.length > 63) || encoded.length > maxNameBytes ? undefined : encoded;
}

/** A name without compression, which a question can't have. Other bytes are in no host's name, and mean something to others: `\` to our resolver, `:` and `@` to proxies. */
function parseName(message: Buffer, at: number): { name: string; end: number } | undefined {
  const labels: string[] = [];
  const start = at;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63) return undefined;
    at++;
    if (length === 0) break;
    if (at + length > message.length || at + length - start >= maxNameBytes) return undefined;
    const label = message.toString("latin1", at, at + length);
    if (!/^[a-z0-9_/-]+$/i.test(label)) return undefined;
    labels.push(label.toLowerCase());
    at += length;
  }
  return { name: labels.join("."), end: at };
}

/** The OPT record, if it is the only one behind the question, as every client sends it. */
function parseEdns(message: Buffer, at: number): { edns: boolean; maxBytes: number } {
  const isOpt = message.readUInt16BE(6) === 0 && message.readUInt16BE(8) === 0 && message.length >= at + 11 && message[at] === 0 && message.readUInt16BE(at + 1) === RecordType.OPT;
  if (!isOpt) return { edns: false, maxBytes: plainDatagramBytes };
  return { edns: true, maxBytes: Math.min(maxDatagramBytes, Math.max(plainDatagramBytes, message.readUInt16BE(at + 3))) };
}

function optRecord(): Buffer {
  const record = Buffer.alloc(11);
  record.writeUInt16BE(RecordType.OPT, 1);
  record.writeUInt16BE(maxDatagramBytes, 3);
  return record;
}
