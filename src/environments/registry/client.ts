/** One repository of one registry (OCI distribution specification 1.1): asks, and says who asks where that is wanted. */
import { PyroError, systemCode } from "../../base/error.js";
import { sleep } from "../../base/deadline.js";
import { harmlessLine } from "../../base/harmless.js";
import { settings } from "../../base/settings.js";
import { BrokenOff } from "../images/blobs.js";
import type { RegistryReference } from "../images/reference.js";
import { parseRecord } from "../record.js";
import { parseChallenges, type Challenge } from "./challenge.js";
import { findCredentials, type Credentials, type FoundCredentials } from "./credentials.js";
import { drop, isLoopback, isNotTls, parseUrl, readBody, type Answer, type Http } from "./http.js";

export const clientLimits = {
  maxTokenBytes: 1 << 20,
  /** A registry that says "later" is waited for, this long at a time, and this often for one answer. */
  maxRetryAfterMs: 120_000,
  maxTries: 5,
  /** Times that a request says who asks: a token may end while others wait. */
  maxAuthorizations: 4,
} as const;

/** What is said to who wants a part of something, by servers that give the whole of it only. */
const refusesRange: ReadonlySet<number> = new Set([400, 405, 416, 501]);

/** `harbor.example:8443/docker-hub` */
const mirrorPattern = /^[^\s/@?#\\]+(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$/;

export interface ClientOptions {
  /** Told what the user has to know: that it has to be waited for, or is not safe. */
  onWait(what: string): void;
  /** One try until it has answered for the first time. */
  impatient: boolean;
}

export class RegistryClient {
  private authorization: string | undefined;
  private found: Promise<FoundCredentials> | undefined;
  private renewing: Promise<void> | undefined;
  private base: URL;
  /** As users write it, for messages and passwords: a mirror's own where that is asked. */
  private readonly host: string;
  /** As the registry knows it. */
  private readonly repository: string;
  private hasAnswered = false;
  private toldOfPlainSecret = false;

  constructor(
    private readonly http: Http,
    reference: RegistryReference,
    private readonly options: ClientOptions,
  ) {
    const mirror = reference.host === "docker.io" ? settings.dockerHubMirror() : undefined;
    const [host = "", ...above] = (mirror ?? reference.host).split("/");
    this.host = host;
    this.repository = [...above, reference.repository].join("/");
    const address = `${settings.plainHttpRegistries().includes(host) ? "http" : "https"}://${host === "docker.io" ? "registry-1.docker.io" : host}/v2/${this.repository}/`;
    if ((mirror !== undefined && !mirrorPattern.test(mirror)) || !URL.canParse(address)) throw new PyroError("INVALID_ARGUMENT", `PYRO_DOCKER_HUB_MIRROR is "${harmlessLine(mirror ?? host, 200)}"; it is HOST:PORT, or HOST:PORT/PATH where the mirror keeps Docker Hub's images below a name of its own.`);
    this.base = new URL(address);
  }

  /**
   * GET of a path below the repository: an answer of status 200 or 206, or, to one that asks for a range, of one in `refusesRange`. Throws NOT_FOUND, DENIED, REGISTRY, CANCELLED; tries again by itself where
   * the registry is busy or was not reached.
   */
  async get(path: string, headers: Record<string, string>, signal: AbortSignal | undefined): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      try {
        const answer = await this.tryGet(path, headers, signal);
        this.hasAnswered = true;
        return answer;
      } catch (error) {
        if (!(error instanceof BrokenOff) || tries === clientLimits.maxTries || (this.options.impatient && !this.hasAnswered)) throw error;
        const waitMs = error.waitMs ?? 250 * 2 ** tries;
        this.options.onWait(`${this.host} is not ready: trying again in ${Math.ceil(waitMs / 1000)} s`);
        await sleep(waitMs, signal);
      }
    }
  }

  /** Who asks for no TLS gets none, and is told what that means. */
  private tellOfPlainSecret(): void {
    if (this.toldOfPlainSecret || this.base.protocol !== "http:" || isLoopback(this.base.hostname)) return;
    this.toldOfPlainSecret = true;
    this.options.onWait(`warning: ${this.host} is asked without TLS, so the password for it can be read on the way`);
  }

  private async tryGet(path: string, headers: Record<string, string>, signal: AbortSignal | undefined): Promise<Answer> {
    let answer: Answer;
    for (let rounds = 1; ; rounds++) {
      const used = this.authorization;
      answer = await this.ask(path, headers, signal);
      // Nobody whom the registry only sends us to has a say in where passwords go.
      if (answer.status !== 401 || answer.url.origin !== this.base.origin || rounds === clientLimits.maxAuthorizations) break;
      const challenges = parseChallenges(answer.header("www-authenticate") ?? "");
      // One asks for all; who was refused with what has been replaced meanwhile need not.
      if (used === this.authorization) await (this.renewing ??= this.authorize(challenges, signal).finally(() => (this.renewing = undefined)));
      if (used === this.authorization) break;
      await drop(answer.body);
    }
    if (answer.status === 200 || answer.status === 206 || (headers["range"] !== undefined && refusesRange.has(answer.status))) return answer;
    if ((answer.status === 401 || answer.status === 403) && answer.url.origin !== this.base.origin) throw await this.refusalElsewhere(answer, path, signal);
    throw await this.refusal(answer, path, signal);
  }

  /** A registry on this machine may do without TLS; it is found out by asking it with. */
  private async ask(path: string, headers: Record<string, string>, signal: AbortSignal | undefined): Promise<Answer> {
    const options = { headers, authorization: this.authorization, signal };
    try {
      return await this.http.ask(new URL(path, this.base), options);
    } catch (error) {
      const cause = error instanceof PyroError ? error.cause : undefined;
      if (this.base.protocol !== "https:" || !isLoopback(this.base.hostname) || !isNotTls(systemCode(cause) ?? "")) throw error;
      this.base = new URL(this.base.href.replace(/^https:/, "http:"));
      return this.http.ask(new URL(path, this.base), options);
    }
  }

  private async refusalElsewhere(answer: Answer, path: string, signal: AbortSignal | undefined): Promise<PyroError> {
    const said = await explanation(answer, signal);
    return new PyroError("REGISTRY", `${this.host} sends whoever wants ${path} to ${answer.url.host}, which answered ${answer.status}${said}.`, {
      hint: `Look whether a firewall or proxy lets you reach ${answer.url.host}, and whether the clock here is right: what is sent there is valid for minutes.`,
    });
  }

  private async refusal(answer: Answer, path: string, signal: AbortSignal | undefined): Promise<PyroError> {
    const { host, repository } = this;
    const { status } = answer;
    const said = await explanation(answer, signal);
    if (status === 404) return new PyroError("NOT_FOUND", `${host} has no ${repository} with ${path.replace(/^(?:manifests|blobs)\//, "")}${said}.`, { hint: "Check the name and the tag." });
    if (status === 401 || status === 403) return this.denial(said);
    if (status === 429 || status >= 500) {
      const waitMs = retryAfterMs(answer.header("retry-after"));
      if (waitMs !== undefined && waitMs > clientLimits.maxRetryAfterMs) return new PyroError("REGISTRY", `${host} wants to be asked again in ${Math.ceil(waitMs / 1000)} s, over the limit maxRetryAfterMs (${clientLimits.maxRetryAfterMs})${said}.`, { hint: "Try again then, or log in to it: many registries give more to users they know." });
      const hint = status === 429 ? `Try again later, or log in to it (docker login ${host}): many registries give more to users they know.${host === "docker.io" ? " Or name a mirror: PYRO_DOCKER_HUB_MIRROR." : ""}` : "Try again later, or ask who runs it.";
      return new BrokenOff(`${host} answered ${status}${said}.`, { hint, ...(waitMs !== undefined && { waitMs }) });
    }
    return new PyroError("REGISTRY", `${host} answered ${status}${said}.`);
  }

  private async denial(said: string): Promise<PyroError> {
    const { host, repository } = this;
    const { credentials, trouble } = await this.findCredentials();
    const message = `${host} does not give ${repository} to ${credentials === undefined ? "somebody unknown" : "this user"}${said}.`;
    if (trouble !== undefined) return new PyroError("DENIED", `${message} ${trouble.message}`, { ...(trouble.hint !== undefined && { hint: trouble.hint }), cause: trouble });
    return new PyroError("DENIED", message, { hint: `Check the name: many registries say so of what they don't have. docker login ${host} (or skopeo login --authfile ~/.docker/config.json ${host}) makes you known to it.` });
  }

  private findCredentials(): Promise<FoundCredentials> {
    return (this.found ??= findCredentials(this.host).then((found) => {
      if (found.trouble !== undefined) this.options.onWait(`warning: ${found.trouble.message} ${this.host} is asked as by somebody unknown`);
      return found;
    }));
  }

  /** From a challenge to the header that answers it. */
  private async authorize(challenges: readonly Challenge[], signal: AbortSignal | undefined): Promise<void> {
    const { credentials } = await this.findCredentials();
    if (credentials !== undefined) this.tellOfPlainSecret();
    const bearer = challenges.find(({ scheme }) => scheme === "bearer");
    if (credentials?.kind === "registry") this.authorization = `Bearer ${credentials.token}`;
    else if (bearer !== undefined) this.authorization = `Bearer ${await this.fetchToken(bearer, credentials, signal)}`;
    else if (challenges.some(({ scheme }) => scheme === "basic") && credentials?.kind === "password") this.authorization = basic(credentials);
  }

  /** https://distribution.github.io/distribution/spec/auth/token and …/oauth */
  private async fetchToken({ parameters }: Challenge, credentials: Credentials | undefined, signal: AbortSignal | undefined): Promise<string> {
    const { host, repository } = this;
    const realm = parseUrl(parameters.get("realm") ?? "");
    if (realm === undefined || !/^https?:$/.test(realm.protocol)) throw new PyroError("REGISTRY", `${host} does not say where to get a token.`);
    // A password goes over the wire in the clear only where the registry itself is asked in the clear, and over a network not because this machine needs no TLS.
    const isClear = this.base.protocol === "http:" && (isLoopback(realm.hostname) || !isLoopback(this.base.hostname));
    if (credentials !== undefined && realm.protocol === "http:" && !isClear) throw new PyroError("DENIED", `${host} wants the password to be sent to ${realm.host} without TLS, which is not done.`, { hint: "Let the registry name a token service that has TLS." });
    const service = parameters.get("service") ?? "";
    const scope = `repository:${repository}:pull`;
    let answer: Answer;
    if (credentials?.kind === "identity") {
      const body = new URLSearchParams({ grant_type: "refresh_token", service, scope, client_id: "pyro-mcp", refresh_token: credentials.token });
      answer = await this.http.ask(realm, { method: "POST", headers: { "content-type": "application/x-www-form-urlencoded" }, body: body.toString(), signal });
    } else {
      if (service !== "") realm.searchParams.set("service", service);
      realm.searchParams.set("scope", scope);
      if (credentials?.kind === "password") realm.searchParams.set("account", credentials.user);
      answer = await this.http.ask(realm, { authorization: credentials?.kind === "password" ? basic(credentials) : undefined, signal });
    }
    if (answer.status !== 200) throw await this.refusal(answer, "a token", signal);
    const record = parseRecord(await readBody(answer, clientLimits.maxTokenBytes, signal), `The token of ${realm.host}`);
    // Some send one of the two names, some both, and some one of them empty.
    const token = ["token", "access_token"].map((name) => (record.isSet(name) ? record.string(name, clientLimits.maxTokenBytes) : "")).find((each) => each !== "") ?? "";
    if (!/^[\x21-\x7e]+$/.test(token)) throw new PyroError("REGISTRY", `The token of ${realm.host} is none.`);
    return token;
  }
}

function basic({ user, password }: { user: string; password: string }): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

/** What the registry says is the matter, as far as it can be read. */
async function explanation(answer: Answer, signal: AbortSignal | undefined): Promise<string> {
  try {
    const errors = parseRecord(await readBody(answer, 65_536, signal), "the answer").list("errors", 20);
    const messages = errors.map((each) => (each.isSet("message") ? each.string("message", 1000) : each.string("code", 200)));
    return messages.length === 0 ? "" : `: ${harmlessLine(messages.join("; "), 300)}`;
  } catch {
    return "";
  }
}

/** RFC 9110, 10.2.3: seconds, or a date. */
function retryAfterMs(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  if (/^[0-9]{1,9}$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isFinite(date) ? Math.max(0, date - Date.now()) : undefined;
}
