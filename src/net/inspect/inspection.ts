/**
 * What a guest says first on a connection: TLS, HTTP/1, or something else. It is held back until that is known and the name in it was judged;
 * a server that speaks first is not waited for by anybody.
 */
import { maxHelloBytes, readClientHello } from "./client-hello.js";
import { Requests, type RequestsEvents } from "./requests.js";

export interface InspectionEvents extends Pick<RequestsEvents, "head" | "forward"> {
  /** TLS to this name. `pass` lets the connection go on unseen; `take` hands over all its bytes from the first on; `refuse` ends it. */
  tls(name: string | undefined): "pass" | "take" | "refuse";
  /** Neither TLS nor HTTP. */
  other(): void;
  /** Something that can't be judged. */
  malformed(via: "tls" | "http", reason: string): void;
}

/** What could become a request and has no first line by then is refused: some servers would read on. */
const maxFirstLineBytes = 16_384;
/** How long the beginning of what could become a request is held back. A client that pauses there must not become one afterwards. */
const patienceMs = 2_000;

// What a lenient server might take for the beginning of a request: empty lines in front of it, however they end, and other white space than the one it should be.
const couldBeRequest = /^[ \t\v\f\r\n]*(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t\v\f\r][^\n]*)?)?$/;
/** Not HTTP's own version: Node serves requests of RTSP and ICE as well. */
const versionIn = /(?:HTTP|RTSP|ICE)\/([0-9.]+)/i;
/** HTTP/0.9, behind which Node reads headers none the less. */
const hasNoVersion = /^(?:CONNECT[ \t\v\f\r]+[^ \t\v\f\r]|[^ \t\v\f\r]+[ \t\v\f\r]+(?:[/*]|[a-z][a-z0-9+.-]*:\/\/))[^ \t\v\f\r]*[ \t\v\f\r]*$/i;
const firstLine = /^[ \t\v\f\r\n]*([^ \t\v\f\r\n][^\n]*)\n/;

export class Inspection {
  readonly #events: InspectionEvents;
  #held: Buffer = Buffer.alloc(0);
  /** What of `held` has gone on already, as nothing followed it. */
  #released = 0;
  #requests: Requests | undefined;
  /** It is known what this is: the rest goes on as it comes, or not at all. */
  #outcome: "pass" | "refuse" | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(events: InspectionEvents) {
    this.#events = events;
  }

  /** Bytes from the guest; they may be kept. */
  push(bytes: Buffer): void {
    if (this.#requests !== undefined) return this.#requests.push(bytes);
    if (this.#outcome === "refuse") return;
    if (this.#outcome === "pass") return this.#events.forward(bytes, bytes.length);
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    this.#classify();
  }

  /** Bytes from the server. */
  answered(bytes: Buffer): void {
    this.#requests?.answered(bytes);
  }

  /** Nothing more comes: what is held was no request. */
  end(): void {
    if (this.#requests === undefined && this.#outcome === undefined && this.#held.length > 0) this.#pass();
    this.close();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #classify(): void {
    if (this.#held[0] === 0x16) return this.#classifyTls();
    const text = this.#held.toString("latin1", 0, maxFirstLineBytes);
    const line = firstLine.exec(text)?.[1];
    if (line === undefined && couldBeRequest.test(text)) return this.#held.length < maxFirstLineBytes ? this.#wait() : this.#refuse("http", `its first line is longer than ${maxFirstLineBytes} bytes (maxFirstLineBytes)`);
    const version = line === undefined ? undefined : versionIn.exec(line)?.[1];
    if (version === undefined && line !== undefined && hasNoVersion.test(line)) return this.#refuse("http", "it has no version");
    if (version === undefined) return this.#pass();
    if (this.#released > 0) return this.#refuse("http", "it paused in its first line");
    if (version !== "1.0" && version !== "1.1") return this.#refuse("http", `its version ${version} hides which host it is for`);
    const { head, forward, malformed } = this.#events;
    this.#outcome = "pass";
    this.close();
    this.#requests = new Requests({ head: (each) => head(each), forward: (bytes, credit) => forward(bytes, credit), malformed: (reason) => malformed("http", reason) });
    this.#requests.push(this.#take());
  }

  #classifyTls(): void {
    if (this.#held.length >= 2 && this.#held[1] !== 3) return this.#pass(); // no version of TLS
    const hello = readClientHello(this.#held);
    if (hello === "more" && this.#held.length <= maxHelloBytes) return;
    if (typeof hello === "string") return this.#refuse("tls", "its hello is malformed");
    const verdict = this.#events.tls(hello.name);
    if (verdict === "refuse") this.#outcome = "refuse";
    else this.#pass();
  }

  #wait(): void {
    this.#timer ??= setTimeout(() => {
      const fresh = this.#held.subarray(this.#released);
      this.#released = this.#held.length;
      this.#timer = undefined;
      this.#events.forward(fresh, fresh.length);
    }, patienceMs);
  }

  #pass(): void {
    this.#outcome = "pass";
    this.close();
    this.#events.other();
    const rest = this.#take();
    this.#events.forward(rest, rest.length);
  }

  #refuse(via: "tls" | "http", reason: string): void {
    this.#outcome = "refuse";
    this.close();
    this.#events.malformed(via, reason);
  }

  #take(): Buffer {
    const rest = this.#held.subarray(this.#released);
    this.#held = Buffer.alloc(0);
    return rest;
  }
}
