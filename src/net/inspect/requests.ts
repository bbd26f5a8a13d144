/**
 * The requests of one HTTP/1 connection, one after the other: each head is shown before it goes on, so that no later request can go to another
 * host than the first. Bodies pass through as they are.
 */
import { encodeRequestHead, headLimits, parseRequestHead, type RequestHead } from "./request-head.js";

export interface RequestsEvents {
  /** Looks at a head, and may change it. False if it was refused: nothing more will be forwarded. `changed` says that it is not as it came. */
  head(head: RequestHead): { allowed: boolean; changed: boolean };
  /** Bytes for the server; they stand for `credit` bytes of the client's. */
  forward(bytes: Buffer, credit: number): void;
  /** The client does not keep to HTTP. */
  malformed(reason: string): void;
}

type State =
  | { at: "head" }
  | { at: "body"; left: number; next: "head" | "chunk end" }
  | { at: "chunk size" }
  | { at: "chunk end" }
  | { at: "trailer"; bytes: number }
  /** A switch of protocols was asked for: what comes next depends on what the server answers. */
  | { at: "answer"; tunnels: RegExp; answer: string }
  /** What was agreed on is no HTTP/1. */
  | { at: "tunnel" }
  | { at: "refused" };

const maxChunkLineBytes = 4096;
const maxTrailerBytes = 16_384;
/** `HTTP/1.1 101`: as much of an answer as tells what it is. */
const statusBytes = 12;

export class Requests {
  readonly #events: RequestsEvents;
  #state: State = { at: "head" };
  #kept: Buffer = Buffer.alloc(0);
  /** Whether there was a request before. The answer to that one, which we don't read, could be mistaken for one to a switch of protocols. */
  #isLater = false;
  /** What the body's state turns into once the head's request is over. */
  #switching: RegExp | undefined;

  constructor(events: RequestsEvents) {
    this.#events = events;
  }

  /** Bytes from the client. What is kept of them is bounded by the limits of a head, or, while a server's answer is waited for, by the window of the connection. */
  push(bytes: Buffer): void {
    if (this.#state.at === "tunnel") return this.#events.forward(bytes, bytes.length);
    if (this.#state.at === "refused") return;
    this.#kept = this.#kept.length === 0 ? bytes : Buffer.concat([this.#kept, bytes]);
    while (this.#step());
  }

  /** Bytes from the server. They are looked at where a switch of protocols was asked for. */
  answered(bytes: Buffer): void {
    if (this.#state.at !== "answer") return;
    this.#state.answer += bytes.toString("latin1", 0, statusBytes - this.#state.answer.length);
    if (this.#state.answer.length < statusBytes) return;
    if (this.#state.tunnels.test(this.#state.answer)) {
      this.#state = { at: "tunnel" };
      if (this.#kept.length > 0) this.#forward(this.#kept.length);
    } else if (this.#state.answer.startsWith("HTTP/1.1 100")) this.#state.answer = "";
    else {
      this.#state = { at: "head" };
      while (this.#step());
    }
  }

  /** Whether all that came has gone on: no head is half there. */
  get isBetween(): boolean {
    return this.#kept.length === 0;
  }

  /** False if more bytes are needed. */
  #step(): boolean {
    if (this.#kept.length === 0) return false;
    switch (this.#state.at) {
      case "head": return this.#head();
      case "body": return this.#body(this.#state);
      case "chunk size": return this.#chunkSize();
      case "chunk end": return this.#chunkEnd();
      case "trailer": return this.#trailer(this.#state);
      default: return false;
    }
  }

  #head(): boolean {
    // An empty line or two in front of a request is to be ignored (RFC 9112, 2.2), and so never reaches the server.
    if (this.#kept[0] === 0x0d && (this.#kept.length === 1 || this.#kept[1] === 0x0a)) {
      if (this.#kept.length === 1) return false;
      this.#events.forward(Buffer.alloc(0), 2);
      this.#kept = this.#kept.subarray(2);
      return true;
    }
    // Whoever ends lines in another way is not told apart from whoever hides one request in another.
    const newLine = this.#kept.indexOf("\n");
    if (newLine >= 0 && this.#kept[newLine - 1] !== 0x0d) return this.#malformed("its lines don't end in CR LF");
    const end = this.#kept.indexOf("\r\n\r\n");
    if (end < 0 || end > headLimits.maxBytes) return this.#kept.length > headLimits.maxBytes ? this.#malformed(`its head is longer than ${headLimits.maxBytes} bytes (maxBytes)`) : false;
    const raw = this.#kept.subarray(0, end + 4);
    const head = parseRequestHead(raw);
    if (typeof head === "string") return this.#malformed(head);
    if (this.#isLater && head.method === "CONNECT") return this.#malformed("it asks for a tunnel behind another request");
    const upgrades = refuseUpgrade(head, this.#isLater);
    this.#isLater = true;
    const { allowed, changed } = this.#events.head(head);
    if (!allowed) {
      this.#state = { at: "refused" };
      return false;
    }
    this.#kept = this.#kept.subarray(raw.length);
    this.#events.forward(changed || upgrades.changed ? encodeRequestHead(head) : Buffer.from(raw), raw.length);
    this.#switching = head.method === "CONNECT" ? /^HTTP\/1\.[01] 2/ : upgrades.asked ? /^HTTP\/1\.1 101/ : undefined;
    if (head.body.type === "chunked") this.#state = { at: "chunk size" };
    else if (head.body.type === "length" && head.body.bytes > 0) this.#state = { at: "body", left: head.body.bytes, next: "head" };
    else this.#over();
    return true;
  }

  #body(state: { left: number; next: "head" | "chunk end" }): boolean {
    const taken = Math.min(state.left, this.#kept.length);
    state.left -= taken;
    this.#forward(taken);
    if (state.left > 0) return false;
    if (state.next === "head") this.#over();
    else this.#state = { at: "chunk end" };
    return true;
  }

  #chunkSize(): boolean {
    const line = this.#line(maxChunkLineBytes);
    if (typeof line !== "string") return line;
    const size = /^([0-9a-fA-F]{1,12})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?$/.exec(line)?.[1];
    if (size === undefined) return this.#malformed("one of its chunks is malformed");
    const bytes = Number.parseInt(size, 16);
    this.#state = bytes === 0 ? { at: "trailer", bytes: 0 } : { at: "body", left: bytes, next: "chunk end" };
    return true;
  }

  #chunkEnd(): boolean {
    if (this.#kept.length < 2) return false;
    if (this.#kept[0] !== 0x0d || this.#kept[1] !== 0x0a) return this.#malformed("one of its chunks is malformed");
    this.#forward(2);
    this.#state = { at: "chunk size" };
    return true;
  }

  #trailer(state: { bytes: number }): boolean {
    const line = this.#line(maxTrailerBytes - state.bytes);
    if (typeof line !== "string") return line;
    state.bytes += line.length + 2;
    if (line === "") this.#over();
    return true;
  }

  /** The next line, which has gone on; false if it is not all there. */
  #line(maxBytes: number): string | false {
    const end = this.#kept.indexOf("\r\n");
    if (end > maxBytes || (end < 0 && this.#kept.length > maxBytes)) return this.#malformed("a line of its body is too long");
    if (end < 0) return false;
    const line = this.#kept.toString("latin1", 0, end);
    if (line.includes("\n") || line.includes("\r")) return this.#malformed("a line of its body is malformed");
    this.#forward(end + 2);
    return line;
  }

  #over(): void {
    this.#state = this.#switching === undefined ? { at: "head" } : { at: "answer", tunnels: this.#switching, answer: "" };
    this.#switching = undefined;
  }

  #forward(count: number): void {
    const bytes = this.#kept.subarray(0, count);
    this.#kept = this.#kept.subarray(count);
    this.#events.forward(bytes, count);
  }

  #malformed(reason: string): false {
    this.#state = { at: "refused" };
    this.#events.malformed(reason);
    return false;
  }
}

/**
 * HTTP/2 without TLS hides its hosts from us, and `all` is for offers of which we would not know what becomes: a client that makes one is answered in HTTP/1, as
 * RFC 9110, 7.8 allows, because nobody hears of the offer.
 */
function refuseUpgrade(head: RequestHead, all: boolean): { asked: boolean; changed: boolean } {
  const isUpgrade = (name: string) => name.toLowerCase() === "upgrade";
  const asked = head.headers.filter(([name]) => isUpgrade(name)).map(([, value]) => value.toLowerCase());
  if (asked.length === 0 || !(all || asked.some((value) => value.includes("h2c")))) return { asked: asked.length > 0, changed: false };
  head.headers = head.headers
    .filter(([name]) => !isUpgrade(name) && name.toLowerCase() !== "http2-settings")
    .map(([name, value]) => [name, name.toLowerCase() === "connection" ? value.split(",").filter((each) => !/^\s*(?:upgrade|http2-settings)\s*$/i.test(each)).join(",").trim() || "keep-alive" : value]);
  return { asked: false, changed: true };
}
