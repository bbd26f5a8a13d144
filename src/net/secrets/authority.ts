/** A certificate authority for one VM: its key never leaves this process, and what it signs is trusted by that guest alone (RFC 5280). */
import { createHash, createPrivateKey, generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import { bits, der, integer, objectId, octets, sequence, set, time, truth, utf8 } from "./der.js";

/** A VM lives for a week at most; clocks in guests may be behind. */
const validDays = 30;
const earlyDays = 2;
const dayMs = 86_400_000;
/** Names that certificates are kept for: there are no more hosts with secrets. */
const maxContexts = 64;

const ecdsaWithSha256 = sequence(objectId("1.2.840.10045.4.3.2"));

interface KeyPair {
  privateKey: KeyObject;
  /** SubjectPublicKeyInfo. */
  publicKey: Buffer;
  /** Of the public key (RFC 5280, 4.2.1.2). */
  id: Buffer;
}

export class Authority {
  /** PEM. */
  readonly certificate: string;
  readonly #subject: Buffer;
  readonly #keys = makeKeys();
  readonly #contexts = new Map<string, SecureContext>();

  /** `name` tells it from other VMs'. */
  constructor(name: string) {
    this.#subject = distinguishedName(`pyro VM ${name}`);
    const constraints = extension("2.5.29.19", true, sequence(truth, integer(Buffer.from([0]))));
    const usage = extension("2.5.29.15", true, bits(Buffer.from([0x06]), 1)); // signs certificates and revocations
    this.certificate = this.#sign(this.#subject, this.#keys, [constraints, usage]);
  }

  /** What a server of this name proves itself with. */
  contextFor(host: string): SecureContext {
    const known = this.#contexts.get(host);
    if (known !== undefined) return known;
    const keys = makeKeys();
    const constraints = extension("2.5.29.19", true, sequence());
    const usage = extension("2.5.29.15", true, bits(Buffer.from([0x80]), 7)); // signs handshakes
    const purpose = extension("2.5.29.37", false, sequence(objectId("1.3.6.1.5.5.7.3.1"))); // is a server
    const names = extension("2.5.29.17", true, sequence(der(0x82, Buffer.from(host, "latin1")))); // critical, as the subject is empty
    const certificate = this.#sign(sequence(), keys, [constraints, usage, purpose, names]);
    const context = createSecureContext({ cert: certificate, key: keys.privateKey.export({ type: "pkcs8", format: "pem" }), minVersion: "TLSv1.2" });
    if (this.#contexts.size < maxContexts) this.#contexts.set(host, context);
    return context;
  }

  #sign(subject: Buffer, keys: KeyPair, extensions: readonly Buffer[]): string {
    const serial = randomBytes(16);
    serial[0]! &= 0x7f;
    const from = new Date(Date.now() - earlyDays * dayMs);
    const to = new Date(Date.now() + validDays * dayMs);
    const subjectKey = extension("2.5.29.14", false, octets(keys.id));
    const issuerKey = extension("2.5.29.35", false, sequence(der(0x80, this.#keys.id)));
    const toBeSigned = sequence(der(0xa0, integer(Buffer.from([2]))), integer(serial), ecdsaWithSha256, this.#subject, sequence(time(from), time(to)), subject, keys.publicKey, der(0xa3, sequence(...extensions, subjectKey, issuerKey)));
    const signature = sign("sha256", toBeSigned, this.#keys.privateKey);
    const base64 = sequence(toBeSigned, ecdsaWithSha256, bits(signature)).toString("base64");
    return `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{1,64}/g, "$&\n")}-----END CERTIFICATE-----\n`;
  }
}

function makeKeys(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256", publicKeyEncoding: { type: "spki", format: "der" }, privateKeyEncoding: { type: "pkcs8", format: "der" } });
  return { privateKey: createPrivateKey({ key: privateKey, type: "pkcs8", format: "der" }), publicKey, id: createHash("sha1").update(publicKey.subarray(-65)).digest() };
}

function distinguishedName(commonName: string): Buffer {
  return sequence(set(sequence(objectId("2.5.4.3"), utf8(commonName.slice(0, 64)))));
}

function extension(id: string, isCritical: boolean, value: Buffer): Buffer {
  return sequence(objectId(id), ...(isCritical ? [truth] : []), octets(value));
}
