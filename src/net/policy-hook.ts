/** What the gateway asks before it does anything for a guest. Whoever starts it answers; nothing here knows any rule. */

export interface Decision {
  allowed: boolean;
  /** Which rule decided, in the words that the audit shows. */
  rule: string;
  /** One clear line for the user, of a refusal. */
  reason?: string;
}

/** An address, as the hook is told of it: dotted IPv4. */
interface AddressFacts {
  address: string;
  /** Whether the address is one of this host's own. */
  own: boolean;
}

export interface NameQuery {
  /** Lower case, without the last dot. */
  name: string;
  /** `A`, `TXT`, `PTR` …; `TYPE64` for one without a name here. */
  type: string;
}

export interface AddressQuery extends AddressFacts {
  name: string;
}

export interface ConnectQuery extends AddressFacts {
  protocol: "tcp" | "udp";
  port: number;
  /** The names that the guest has resolved to this address, the latest first. */
  names: readonly string[];
}

export interface HelloQuery extends AddressFacts {
  /** What TLS calls the server name and HTTP the host; undefined if the guest gave none. */
  name: string | undefined;
  via: "tls" | "http";
  port: number;
  names: readonly string[];
}

export interface PolicyHook {
  /** May this name be asked for? */
  name(query: NameQuery): Decision;
  /** May this name be answered with this address? That is asked for each address that a resolver gave, and again by `connect`. */
  address(query: AddressQuery): Decision;
  /** May the guest connect, or send datagrams, there? */
  connect(query: ConnectQuery): Decision;
  /** Does what the guest says to the server agree with where it connected? */
  helloName(query: HelloQuery): Decision;
}
