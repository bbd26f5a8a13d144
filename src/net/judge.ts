/** What one connection of the guest's may say: asks the policy about the names in it, puts secrets in, and writes down what came of it. */
import type { Audit, AuditRecord } from "./audit.js";
import { isOwnAddress } from "./addresses.js";
import type { RequestHead } from "./inspect/request-head.js";
import type { Decision, PolicyHook } from "./policy-hook.js";
import type { Proxy } from "./proxy.js";
import type { PlaceholderWatcher, Secrets } from "./secrets/secrets.js";

export interface JudgeOptions {
  hook(): PolicyHook;
  audit: Audit;
  secrets: Secrets;
  address: string;
  port: number;
  /** The address stands for its name alone. */
  standIn: boolean;
  /** The names that the guest has resolved to the address, as of now. */
  names(): readonly string[];
  /** What is spoken to is a proxy for requests. */
  proxy?: Proxy;
}

/** Names that are kept of one connection; no honest client has more. */
const maxSaid = 64;
const httpPort = 80;
const httpsPort = 443;

export class Judge {
  readonly #options: JudgeOptions;
  #watcher: PlaceholderWatcher | undefined;
  /** What was said so far, for a policy that is changed meanwhile. */
  readonly #said = new Map<string, { via: "tls" | "http"; name: string | undefined }>();

  constructor(options: JudgeOptions) {
    this.#options = options;
    this.#watcher = options.secrets.watcher(undefined);
  }

  /** TLS to a server of this name. */
  tls(name: string | undefined): "pass" | "take" | "refuse" {
    if (!this.other()) return "refuse";
    const decision = this.#ask("tls", name);
    if (!decision.allowed) {
      this.#refuse("tls", name, decision);
      return "refuse";
    }
    this.#watcher = undefined; // nothing can be seen in it
    return name !== undefined && this.#isSecretHost(name) ? "take" : "pass";
  }

  /** Something that is no HTTP. False if it can't go on. */
  other(): boolean {
    if (this.#options.proxy === undefined) return true;
    this.#refuse("tcp", undefined, { allowed: false, rule: "proxy", reason: "the host's HTTP proxy takes nothing but HTTP on this port" });
    return false;
  }

  /** The head of a request; `host` is the server's name if TLS has proved it. Secrets are put in. */
  head(head: RequestHead, host?: string): { allowed: boolean; changed: boolean } {
    const via = host === undefined ? "http" : "tls";
    for (const name of head.hosts.length === 0 ? [undefined] : head.hosts) {
      const decision = host !== undefined && name !== undefined && withoutPort(name) !== host ? { allowed: false, rule: "name-mismatch", reason: `the HTTP host is ${JSON.stringify(name.slice(0, 100))} and the TLS server name ${host}` } : this.#ask("http", name);
      if (decision.allowed) continue;
      this.#refuse(via, name, decision);
      return { allowed: false, changed: false };
    }
    const { secrets, audit, address, port, proxy } = this.#options;
    const isForProxy = proxy !== undefined && host === undefined;
    if (isForProxy && head.method === "CONNECT") {
      this.#refuse(via, head.target, { allowed: false, rule: "proxy", reason: "the host's HTTP proxy is not asked for tunnels by the guest" });
      return { allowed: false, changed: false };
    }
    if (isForProxy) this.#addressWhole(head, proxy);
    if (secrets.isEmpty) return { allowed: true, changed: isForProxy };
    // No server speaks HTTP in the clear on that port: whoever does wants it to be read on the way.
    const plainHost = head.hosts.length === 1 && port !== httpsPort ? withoutPort(head.hosts[0]!) : undefined;
    const certainHost = host ?? (plainHost !== undefined && this.#isSecretHost(plainHost) ? plainHost : undefined);
    const { used, misplaced } = secrets.putIn(head, certainHost);
    if (misplaced !== undefined) {
      this.misplaced(misplaced, via);
      return { allowed: false, changed: false };
    }
    this.#watcher = secrets.watcher(certainHost);
    for (const secret of used) audit.write({ type: "secret", protocol: via, secret, address, port, ...(certainHost !== undefined && { name: certainHost }) });
    return { allowed: true, changed: isForProxy || used.length > 0 };
  }

  /** For a proxy, which has to know where a request is to go (RFC 9112, 3.2.2), and from whom it is. */
  #addressWhole(head: RequestHead, { authorization }: Proxy): void {
    const authority = this.#authorityFor(head);
    const path = /^(?:https?:\/\/[^/?#]*)?(.*)$/is.exec(head.target)![1]!;
    head.target = `http://${authority}${path === "*" ? "" : path.startsWith("/") ? path : `/${path}`}`;
    head.headers = head.headers.map(([name, value]) => [name, name.toLowerCase() === "host" ? authority : value]);
    head.headers = head.headers.filter(([name]) => name.toLowerCase() !== "proxy-authorization");
    if (authorization !== undefined) head.headers.push(["Proxy-Authorization", authorization]);
  }

  /** Where the guest has connected, and nowhere else: to a proxy what a request names is not a word for the server, but where to go. */
  #authorityFor({ hosts }: RequestHead): string {
    const { address, port, names } = this.#options;
    const known = names();
    const name = hosts.map(withoutPort).find((host) => known.includes(host)) ?? known[0] ?? address;
    return port === httpPort ? name : `${name}:${port}`;
  }

  /** Whether the policy, as it is now, allows what was said so far. */
  stillAllowed(): boolean {
    return [...this.#said.values()].every(({ via, name }) => this.#ask(via, name).allowed);
  }

  /** Whether what passes has to be looked at to the end. */
  get watches(): boolean {
    return this.#watcher !== undefined;
  }

  /** Whether these bytes have a placeholder in them that is for another host. Then they must not go out, and it is on record. */
  leaks(bytes: Buffer, start = 0, end = bytes.length): boolean {
    const found = this.#watcher?.find(bytes, start, end);
    if (found === undefined) return false;
    this.misplaced(found, "tcp");
    return true;
  }

  malformed(via: "tls" | "http", reason: string): void {
    this.#refuse(via, undefined, { allowed: false, rule: `malformed-${via}`, reason });
  }

  misplaced(secret: string, via: AuditRecord["protocol"]): void {
    this.#refuse(via, undefined, { allowed: false, rule: "secret", reason: `the placeholder of secret ${secret} was sent to another host than it is for` });
  }

  /** What kept the connection from being what the guest wanted, for the record. */
  failed(name: string, reason: string): void {
    this.#refuse("tls", name, { allowed: false, rule: "secret", reason });
  }

  /** A host with a secret, and the address is one that it resolves to. */
  #isSecretHost(name: string): boolean {
    return this.#options.secrets.isFor(name) && this.#options.names().includes(name);
  }

  #ask(via: "tls" | "http", name: string | undefined): Decision {
    if (this.#said.size < maxSaid) this.#said.set(`${via} ${name}`, { via, name });
    const { hook, address, port, names, standIn } = this.#options;
    return hook().helloName({ via, name, address, port, names: names(), own: isOwnAddress(address), standIn });
  }

  #refuse(protocol: AuditRecord["protocol"], name: string | undefined, { rule, reason }: Decision): void {
    const { audit, address, port } = this.#options;
    audit.write({ type: "refused", protocol, address, port, rule, ...(name !== undefined && { name }), ...(reason !== undefined && { reason }) });
  }
}

function withoutPort(host: string): string {
  return host.replace(/:[0-9]*$/, "").toLowerCase();
}
