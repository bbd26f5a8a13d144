/**
 * One end of a TCP connection with the guest (RFC 9293). It touches no socket and no clock: segments come in, segments and events go out.
 *
 * The link loses nothing and keeps the order, but the guest may drop what it has no memory for. So what was sent is kept until it is
 * acknowledged, and sent again by a timer or after three equal acknowledgments (RFC 5681, 3.2); there is no congestion on a link of two and hence
 * no congestion window. Of what comes, only what is next in order is taken: a gap is rare enough that the guest may send again what follows it.
 */
import type { FrameSink } from "../wire/link.js";
import { ipv4HeaderBytes } from "../wire/ipv4.js";
import { ByteQueue } from "./byte-queue.js";
import { Flag, sendSegment, sendSyn, tcpHeaderBytes, type Segment, type SegmentFields } from "./segment.js";

/** What an endpoint needs of its surroundings. */
export interface EndpointContext {
  readonly sink: FrameSink;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
  /** Calls `flush` soon, once for all that happens until then; a little later where it is nothing that the guest waits for. */
  flushSoon(endpoint: Endpoint, isPatient?: boolean): void;
  /** Calls `acknowledge` a little later: what is to be acknowledged may go with an answer by then. */
  acknowledgeSoon(endpoint: Endpoint): void;
  /** Calls `expire` once `endpoint.deadline` has passed. */
  watch(endpoint: Endpoint): void;
  /** It is over: nothing of the above is wanted any more. */
  closed(endpoint: Endpoint): void;
  /** An initial sequence number (RFC 6528): one that nobody can guess. */
  initialSequence(): number;
  /** How much one connection may hold at once in each direction, bytes: more connections, less each. */
  shareBytes(): number;
}

export interface EndpointEvents {
  /** The guest has agreed to the connection. */
  opened(): void;
  /** Bytes from the guest, valid during the call alone. `consumed` has to be told when they are out of the way. */
  data(bytes: Buffer, start: number, end: number): void;
  /** The guest sends nothing more. */
  ended(): void;
  /** There is room again for what the guest is to get. */
  drained(): void;
  /** The guest has broken the connection off, refused it, or no longer answers. */
  reset(): void;
  /** Nothing more will happen, whatever the cause. Called once, also after `reset`. */
  closed(): void;
}

export interface EndpointAddress {
  /** Ours, as the guest sees it: the server that it connects to. */
  local: number;
  localPort: number;
  guest: number;
  guestPort: number;
}

type State = "connecting" | "syn-received" | "syn-sent" | "open" | "time-wait" | "closed";

export const tcpTimes = {
  /** Until something is sent again for the first time; then twice as long each time, as far as `maxRetransmitMs`. */
  firstRetransmitMs: 1_000,
  maxRetransmitMs: 60_000,
  /** Sent again as often without any answer, the guest counts as gone: that is after some ten minutes. */
  maxRetransmits: 15,
  /** An answer to SYN is waited for less long. */
  maxSynRetransmits: 6,
  /** How long a connection that we closed first is remembered; on this link nothing is late. */
  timeWaitMs: 2_000,
} as const;

/** The largest packet that IPv4 can carry decides, as the guest names its own limit. */
const maxMssBytes = 65_535 - ipv4HeaderBytes - tcpHeaderBytes;
/** Windows of up to 2 MiB, in steps of 32 bytes. */
const ownWindowShift = 5;
const maxWindow = 0xffff;
const duplicatesForLoss = 3;

export class Endpoint {
  readonly address: EndpointAddress;
  events: EndpointEvents;
  /** When `expire` is to be called, on the context's clock; 0 for never. */
  deadline = 0;
  readonly #context: EndpointContext;
  readonly #queue = new ByteQueue();
  #state: State = "connecting";

  // What we send: acknowledged up to `una`, sent up to `next`. `wl1` and `wl2` tell a newer window from an older one.
  #una = 0;
  #next = 0;
  #window = 0;
  #wl1 = 0;
  #wl2 = 0;
  #windowShift = 0;
  #mss = 536;
  #ending = false;
  #finSent = false;
  #finAcked = false;
  #duplicates = 0;
  /** While what was in flight at a loss is not acknowledged up to here, what comes next is lost as well. */
  #recover: number | undefined;
  #retransmitMs: number = tcpTimes.firstRetransmitMs;
  #retransmits = 0;
  #full = false;

  // What we receive: taken up to `received`, allowed up to `edge`; `unread` of it is still with whoever gets it.
  #received = 0;
  #edge = 0;
  #unread = 0;
  #ownShift = 0;
  #scales = false;
  #finReceived = false;
  #closedFirst = false;
  #ackDue: "now" | "soon" | undefined;
  /** Of what was received, the guest has been told up to here. */
  #told = 0;

  constructor(context: EndpointContext, address: EndpointAddress, events: EndpointEvents) {
    this.#context = context;
    this.address = address;
    this.events = events;
  }

  get state(): State {
    return this.#state;
  }

  /** How much it may hold at once in each direction, bytes. */
  get shareBytes(): number {
    return this.#context.shareBytes();
  }

  /** Takes the SYN that the guest begins with. It is answered by `answer` or `reset`, after it is known what becomes of the connection. */
  accept(syn: Segment): void {
    this.#takeSyn(syn);
    this.#una = this.#next = this.#context.initialSequence();
    this.#window = syn.window;
  }

  /** The connection can be made: the guest may go on. */
  answer(): void {
    if (this.#state !== "connecting") return;
    this.#state = "syn-received";
    this.#next = (this.#una + 1) | 0;
    this.#sendSyn();
    this.#startTimer();
  }

  /** Begins a connection to the guest. */
  connect(): void {
    this.#state = "syn-sent";
    this.#una = this.#context.initialSequence();
    this.#next = (this.#una + 1) | 0;
    this.#scales = true;
    this.#ownShift = ownWindowShift;
    this.#sendSyn();
    this.#startTimer();
  }

  /** Bytes for the guest; `chunk` is kept until it is acknowledged. False if enough is waiting: `drained` tells when to go on. */
  send(chunk: Buffer): boolean {
    if (this.#state === "closed" || this.#ending) return true;
    this.#queue.push(chunk);
    this.#context.flushSoon(this);
    this.#full = this.#queue.length >= this.#context.shareBytes();
    return !this.#full;
  }

  /** Nothing more will be sent. */
  end(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#context.flushSoon(this, true);
  }

  /** Breaks the connection off. */
  reset(): void {
    if (this.#state === "closed") return;
    if (this.#state === "connecting") this.#send(0, Flag.rst | Flag.ack);
    else if (this.#state !== "syn-sent" && this.#state !== "time-wait") this.#send(this.#next, Flag.rst | Flag.ack);
    this.#close();
  }

  /** Of what `data` gave, `count` bytes are out of the way. */
  consumed(count: number): void {
    this.#unread -= count;
    const left = (this.#edge - this.#received) | 0;
    const opened = (this.#rightEdge() - this.#edge) | 0;
    // Only where the guest may wait for it, and a step that is worth a packet (RFC 9293, 3.8.6.2.2).
    if (left < 2 * this.#mss && opened >= Math.min(this.#mss, this.#context.shareBytes() / 2) && this.#state === "open" && !this.#finReceived) {
      this.#ackDue = "now";
      this.#context.flushSoon(this);
    }
  }

  /** A segment of this connection. */
  receive(segment: Segment): void {
    if (this.#state === "closed" || this.#state === "connecting") return this.#receiveEarly(segment);
    if (this.#state === "syn-sent") return this.#receiveSynAck(segment);
    const early = (this.#received - segment.sequence) | 0; // how much of it was taken before
    const length = segment.length;
    const room = (this.#edge - this.#received) | 0;
    if (segment.has(Flag.rst)) {
      if (early === 0) this.#lose();
      else if (early < 0 && -early < room) this.#ackNow(); // RFC 5961, 3.2: the guest confirms if it meant it
      return;
    }
    if (segment.has(Flag.syn)) {
      if (this.#state === "syn-received" && early === 1) this.#sendSyn();
      else this.#ackNow(); // RFC 5961, 4.2
      return;
    }
    if (!segment.has(Flag.ack)) return;
    if (early > length || (early === length && length > 0) || (early > 0 && length === 0) || -early > room) {
      // Old, or beyond the window. Its acknowledgment counts if it is old: a probe of our window looks like that.
      if (early > 0 && !this.#acknowledge(segment)) return;
      return this.#ackNow();
    }
    if (!this.#acknowledge(segment)) return;
    if (early < 0) {
      if (length > 0) this.#ackNow(); // at once and for each: that is how the guest learns of the gap
      return;
    }
    if (length > 0) this.#take(segment, early, room);
    this.#checkClosed();
  }

  /** Sends what there is to send. */
  flush(): void {
    if (this.#state !== "open") return;
    this.#pump();
    if (this.#ackDue === "now") this.#send(this.#next, Flag.ack);
  }

  /** Tells the guest what has come, if nothing that was sent since has. */
  acknowledge(): void {
    if (this.#ackDue !== undefined && this.#state === "open") this.#send(this.#next, Flag.ack);
  }

  /** The deadline has passed. */
  expire(): void {
    this.deadline = 0;
    if (this.#state === "closed") return;
    if (this.#state === "time-wait") return this.#close();
    const inFlight = (this.#next - this.#una) | 0;
    if (inFlight === 0 && this.#queue.length === 0) return;
    // While the guest takes nothing at all there is no use in more of it, and no sign that it is gone.
    if (!this.#context.sink.congested) {
      const most = this.#state === "open" ? tcpTimes.maxRetransmits : tcpTimes.maxSynRetransmits;
      if (this.#retransmits++ >= most) {
        if (this.#state !== "syn-sent") this.#send(this.#next, Flag.rst | Flag.ack);
        return this.#lose();
      }
      if (inFlight > 0) {
        this.#recover = this.#next;
        this.#sendFirstAgain();
      } else if (this.#room() > 0) this.#pump();
      else this.#send((this.#una - 1) | 0, Flag.ack); // a probe of its window: an old segment has to be answered
      this.#retransmitMs = Math.min(this.#retransmitMs * 2, tcpTimes.maxRetransmitMs);
    }
    this.#startTimer();
  }

  /** A new SYN for a connection that is only remembered. */
  get isReusable(): boolean {
    return this.#state === "time-wait";
  }

  /** Forgets a connection that is only remembered. */
  forget(): void {
    this.#close();
  }

  // ---- receiving

  #receiveEarly(segment: Segment): void {
    if (this.#state === "connecting" && segment.has(Flag.rst) && segment.sequence === this.#received) this.#lose();
  }

  #receiveSynAck(segment: Segment): void {
    const acknowledges = segment.has(Flag.ack) && segment.acknowledgment === this.#next;
    if (segment.has(Flag.rst)) {
      if (acknowledges) this.#lose();
      return;
    }
    if (!acknowledges || !segment.has(Flag.syn)) return;
    this.#takeSyn(segment);
    this.#una = segment.acknowledgment;
    this.#window = segment.window;
    this.#open();
    this.#ackNow();
    this.#context.flushSoon(this);
  }

  #takeSyn(syn: Segment): void {
    this.#received = (syn.sequence + 1) | 0;
    this.#edge = this.#told = this.#received;
    this.#wl1 = syn.sequence;
    this.#wl2 = syn.acknowledgment;
    this.#mss = Math.min(syn.mssBytes, maxMssBytes);
    this.#scales = syn.windowShift !== undefined;
    this.#windowShift = syn.windowShift ?? 0;
    this.#ownShift = this.#scales ? ownWindowShift : 0;
  }

  #open(): void {
    this.#state = "open";
    this.#progress();
    this.events.opened();
  }

  /** False if the segment is not to be looked at further. */
  #acknowledge(segment: Segment): boolean {
    const acked = (segment.acknowledgment - this.#una) | 0;
    const inFlight = (this.#next - this.#una) | 0;
    if (acked > inFlight) {
      this.#ackNow(); // what was never sent
      return false;
    }
    this.#retransmits = 0;
    if (acked > 0) this.#advance(acked, segment.acknowledgment);
    else if (acked === 0 && inFlight > 0 && segment.length === 0 && segment.window << this.#windowShift === this.#window) this.#countDuplicate();
    if ((this.#state as State) === "closed") return false;
    const newer = (segment.sequence - this.#wl1) | 0;
    if (acked >= 0 && (newer > 0 || (newer === 0 && ((segment.acknowledgment - this.#wl2) | 0) >= 0))) {
      this.#window = segment.window << this.#windowShift;
      this.#wl1 = segment.sequence;
      this.#wl2 = segment.acknowledgment;
      if (this.#queue.length > 0 && this.#next === this.#una && this.#window > 0) this.#progress(); // it was probed for, more and more rarely
    }
    if (this.#queue.length > 0 || this.#ending) this.#context.flushSoon(this);
    return true;
  }

  #advance(acked: number, acknowledgment: number): void {
    if (this.#state === "syn-received") {
      this.#una = (this.#una + 1) | 0;
      acked--;
      this.#open();
      if ((this.#state as State) === "closed") return;
    }
    const data = Math.min(acked, this.#queue.length);
    this.#queue.drop(data);
    this.#una = acknowledgment;
    if (acked > data && this.#finSent) this.#finAcked = true;
    this.#progress();
    if (this.#recover !== undefined) {
      if (((this.#recover - acknowledgment) | 0) <= 0) this.#recover = undefined;
      else this.#sendFirstAgain();
    }
    if (this.#full && this.#queue.length < this.#context.shareBytes() / 2) {
      this.#full = false;
      this.events.drained();
    }
  }

  #countDuplicate(): void {
    if (++this.#duplicates !== duplicatesForLoss || this.#recover !== undefined) return;
    this.#recover = this.#next;
    this.#sendFirstAgain();
  }

  #take(segment: Segment, early: number, room: number): void {
    if (this.#finReceived) return this.#ackNow();
    const start = segment.start + early;
    const taken = Math.min(segment.end - start, room);
    this.#received = (this.#received + taken) | 0;
    const isInVain = taken === 0 && segment.end > start; // a probe of a window that is closed
    // Two segments' worth is told at once, so that a stream flows; less, and an end alone, may wait for an answer to go with (RFC 9293, 3.8.6.3).
    if (isInVain || ((this.#received - this.#told) | 0) >= 2 * this.#mss) {
      this.#ackDue = "now";
      this.#context.flushSoon(this);
    } else this.#acknowledgeSoon();
    if (taken > 0) {
      this.#unread += taken;
      this.events.data(segment.bytes, start, start + taken);
      if ((this.#state as State) === "closed") return;
    }
    if (!segment.has(Flag.fin) || start + taken < segment.end) return;
    this.#received = (this.#received + 1) | 0;
    this.#edge = this.#received;
    this.#finReceived = true;
    this.#closedFirst = this.#finSent;
    this.#acknowledgeSoon();
    this.events.ended();
  }

  #acknowledgeSoon(): void {
    if (this.#ackDue !== undefined) return;
    this.#ackDue = "soon";
    this.#context.acknowledgeSoon(this);
  }

  #checkClosed(): void {
    if (this.#state !== "open" || !this.#finReceived || !this.#finAcked) return;
    if (!this.#closedFirst) return this.#close();
    this.#send(this.#next, Flag.ack);
    this.#state = "time-wait";
    this.deadline = this.#context.now() + tcpTimes.timeWaitMs;
    this.#context.watch(this);
  }

  // ---- sending

  /** How much more the guest allows. */
  #room(): number {
    return (this.#una + this.#window - this.#next) | 0;
  }

  #pump(): void {
    const { sink } = this.#context;
    while (!this.#finSent) {
      const inFlight = (this.#next - this.#una) | 0;
      const unsent = this.#queue.length - inFlight;
      if (unsent === 0 || sink.congested) break;
      const count = Math.min(unsent, this.#mss, this.#room());
      // A piece that is small only because the window is waits for the window (RFC 9293, 3.8.6.2.1).
      if (count <= 0 || (count < this.#mss && count < unsent && inFlight > 0)) break;
      const isLast = count === unsent;
      const ends = isLast && this.#ending;
      this.#send(this.#next, Flag.ack | (isLast ? Flag.psh : 0) | (ends ? Flag.fin : 0), inFlight, count);
      this.#next = (this.#next + count + (ends ? 1 : 0)) | 0;
      this.#finSent = ends;
    }
    if (this.#ending && !this.#finSent && ((this.#next - this.#una) | 0) === this.#queue.length) {
      this.#send(this.#next, Flag.ack | Flag.fin);
      this.#next = (this.#next + 1) | 0;
      this.#finSent = true;
    }
    if (this.deadline === 0 && (this.#queue.length > 0 || this.#next !== this.#una)) this.#startTimer();
  }

  #sendFirstAgain(): void {
    if (this.#state === "syn-sent" || this.#state === "syn-received") return this.#sendSyn();
    const inFlight = (this.#next - this.#una) | 0;
    const data = Math.min(this.#queue.length, inFlight, this.#mss);
    const isAll = data === this.#queue.length && this.#finSent;
    if (data > 0 || isAll) this.#send(this.#una, Flag.ack | (isAll ? Flag.fin : 0), 0, data);
  }

  #sendSyn(): void {
    const isAnswer = this.#state === "syn-received";
    const room = Math.min(this.#context.shareBytes(), maxWindow); // not scaled in a SYN
    if (isAnswer) this.#edge = (this.#received + room) | 0;
    const fields = this.#fields(this.#una, isAnswer ? Flag.syn | Flag.ack : Flag.syn, room);
    if (!isAnswer) fields.acknowledgment = 0;
    sendSyn(this.#context.sink, fields, maxMssBytes, this.#scales ? this.#ownShift : undefined);
  }

  #ackNow(): void {
    this.#send(this.#next, Flag.ack);
  }

  #send(sequence: number, flags: number, offset = 0, dataBytes = 0): void {
    sendSegment(this.#context.sink, this.#fields(sequence, flags, this.#offerWindow()), this.#queue, offset, dataBytes);
    this.#ackDue = undefined;
    this.#told = this.#received;
  }

  #fields(sequence: number, flags: number, window: number): SegmentFields {
    const { local, localPort, guest, guestPort } = this.address;
    return { source: local, sourcePort: localPort, destination: guest, destinationPort: guestPort, sequence, acknowledgment: this.#received, flags, window };
  }

  /** The window as it goes into the header. Its right edge never moves back (RFC 9293, 3.8.6). */
  #offerWindow(): number {
    if (this.#finReceived || this.#state !== "open") return this.#state === "open" ? 0 : Math.max(0, ((this.#edge - this.#received) | 0) >> this.#ownShift);
    const wanted = Math.max((this.#edge - this.#received) | 0, (this.#rightEdge() - this.#received) | 0);
    const window = Math.min(wanted >> this.#ownShift, maxWindow);
    const edge = (this.#received + (window << this.#ownShift)) | 0;
    if (((edge - this.#edge) | 0) > 0) this.#edge = edge;
    return window;
  }

  #rightEdge(): number {
    return (this.#received - this.#unread + this.#context.shareBytes()) | 0;
  }

  // ---- time and end

  #progress(): void {
    this.#duplicates = 0;
    this.#retransmits = 0;
    this.#retransmitMs = tcpTimes.firstRetransmitMs;
    this.deadline = 0;
    if (this.#next !== this.#una || this.#queue.length > 0) this.#startTimer();
  }

  #startTimer(): void {
    this.deadline = this.#context.now() + this.#retransmitMs;
    this.#context.watch(this);
  }

  #lose(): void {
    this.events.reset();
    this.#close();
  }

  #close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.deadline = 0;
    this.#queue.drop(this.#queue.length);
    this.#context.closed(this);
    this.events.closed();
  }
}
