/** A guest's end of one TCP connection in a test's hands: it makes any segment, and sees what comes back. No socket, no clock of its own. */
import { link } from "../../src/net/addresses.js";
import { Endpoint, type EndpointContext } from "../../src/net/tcp/endpoint.js";
import { Flag, Segment, sendSegment, sendSyn } from "../../src/net/tcp/segment.js";
import { Ipv4Packet } from "../../src/net/wire/ipv4.js";
import type { FrameSink } from "../../src/net/wire/link.js";

/** Keeps frames instead of sending them. */
export class Frames implements FrameSink {
  target: Buffer = Buffer.alloc(0);
  congested = false;
  readonly #frames: Buffer[] = [];

  begin(etherType: number, payloadBytes: number): number {
    this.target = Buffer.alloc(14 + payloadBytes);
    link.guestMac.copy(this.target, 0);
    link.gatewayMac.copy(this.target, 6);
    this.target.writeUInt16BE(etherType, 12);
    this.#frames.push(this.target);
    return 14;
  }

  take(): Buffer[] {
    return this.#frames.splice(0);
  }
}

export interface Seen {
  flags: string;
  /** Counted from the first byte behind the SYN. */
  sequence: number;
  acknowledgment: number;
  window: number;
  data: string;
}

const local = 0xcb007105; // 203.0.113.5

export class Peer implements EndpointContext {
  readonly sink = new Frames();
  readonly endpoint: Endpoint;
  readonly events: string[] = [];
  /** When the endpoint wanted to be flushed. */
  readonly asked: ("soon" | "later")[] = [];
  received = Buffer.alloc(0);
  share = 1024 * 1024;
  /** Milliseconds. */
  time = 0;
  /** What `consumed` is told at once; else the test does. */
  consumes = true;
  /** What waits for an answer to go with is not waited for. */
  acknowledges = true;
  readonly #own: number;
  readonly #theirs: number;
  readonly #frames = new Frames();
  readonly #packet = new Ipv4Packet();
  readonly #segment = new Segment();

  /** Sequence numbers that both begin with. */
  constructor({ own = 1000, theirs = 5000 } = {}) {
    this.#own = own;
    this.#theirs = theirs;
    this.endpoint = new Endpoint(this, { local, localPort: 80, guest: link.guest, guestPort: 40_000 }, {
      opened: () => this.events.push("opened"),
      data: (bytes, start, end) => {
        this.received = Buffer.concat([this.received, bytes.subarray(start, end)]);
        if (this.consumes) this.endpoint.consumed(end - start);
      },
      ended: () => this.events.push("ended"),
      drained: () => this.events.push("drained"),
      reset: () => this.events.push("reset"),
      closed: () => this.events.push("closed"),
    });
  }

  now = () => this.time;
  flushSoon = (_endpoint: Endpoint, isPatient = false) => void this.asked.push(isPatient ? "later" : "soon");
  watch = () => {};
  closed = () => {};
  acknowledgeSoon = () => {};
  initialSequence = () => this.#theirs;
  shareBytes = () => this.share;

  /** The handshake, up to an open connection. */
  open({ mss = 1000, windowShift = 0 as number | null, window = 65_535 } = {}): void {
    this.syn({ mss, windowShift, window });
    this.endpoint.answer();
    this.take();
    this.send("A", { sequence: 0, acknowledgment: 0, window });
    this.take();
  }

  syn({ mss = 1000, windowShift = 0 as number | null, window = 65_535 } = {}): void {
    sendSyn(this.#frames, { ...this.#ports(), sequence: this.#own, acknowledgment: 0, flags: Flag.syn, window }, mss, windowShift ?? undefined);
    const [frame] = this.#frames.take();
    this.#packet.read(frame!, 14, frame!.length);
    this.#segment.read(this.#packet);
    if (this.endpoint.state === "connecting") this.endpoint.accept(this.#segment);
    else this.endpoint.receive(this.#segment);
    this.endpoint.flush();
  }

  /** `flags` are letters of S, A, F, R, P; numbers are counted from the first byte behind the SYN. */
  send(flags: string, { sequence = 0, acknowledgment = 0, window = 65_535, data = "" as string | Buffer } = {}): void {
    const bits = { S: Flag.syn, A: Flag.ack, F: Flag.fin, R: Flag.rst, P: Flag.psh } as Record<string, number>;
    const payload = Buffer.from(data);
    const queue = { copyTo: (target: Buffer, at: number) => payload.copy(target, at) };
    const fields = { ...this.#ports(), sequence: (this.#own + 1 + sequence) | 0, acknowledgment: (this.#theirs + 1 + acknowledgment) | 0, flags: [...flags].reduce((all, each) => all | bits[each]!, 0), window };
    sendSegment(this.#frames, fields, queue as never, 0, payload.length);
    const [frame] = this.#frames.take();
    if (!this.#packet.read(frame!, 14, frame!.length) || !this.#segment.read(this.#packet)) throw new Error("not what was meant");
    this.endpoint.receive(this.#segment);
    this.endpoint.flush();
  }

  /** What the endpoint has sent since. */
  take(): Seen[] {
    this.endpoint.flush();
    if (this.acknowledges) this.endpoint.acknowledge();
    return this.sink.take().map((frame) => {
      if (!this.#packet.read(frame, 14, frame.length) || !this.#segment.read(this.#packet)) throw new Error("the endpoint sent no segment");
      const { sequence, acknowledgment, flags, window, bytes, start, end } = this.#segment;
      const letters = Object.entries({ S: Flag.syn, A: Flag.ack, F: Flag.fin, R: Flag.rst, P: Flag.psh }).filter(([, bit]) => flags & bit).map(([letter]) => letter);
      return { flags: letters.join(""), sequence: (sequence - this.#theirs - 1) | 0, acknowledgment: (acknowledgment - this.#own - 1) | 0, window, data: bytes.toString("latin1", start, end) };
    });
  }

  /** Lets time pass, with the endpoint's deadlines as they come. */
  pass(ms: number): void {
    const end = this.time + ms;
    while (this.endpoint.deadline !== 0 && this.endpoint.deadline <= end) {
      this.time = this.endpoint.deadline;
      this.endpoint.expire();
    }
    this.time = end;
  }

  #ports() {
    return { source: link.guest, sourcePort: 40_000, destination: local, destinationPort: 80 };
  }
}
