/** Which image a name means: one in a registry, in a layout directory or in a saved archive. */
import { stat } from "node:fs/promises";
import { isAbsolute, resolve } from "node:path";
import { PyroError } from "../../base/error.js";
import { harmlessLine, isHarmlessLine } from "../../base/harmless.js";

export interface RegistryReference {
  kind: "registry";
  /** As users write it: `docker.io`, `localhost:5000`. */
  host: string;
  /** `library/python` */
  repository: string;
  /** One of both; the digest decides where a reference has both. */
  tag?: string;
  digest?: string;
}

export interface FileReference {
  /** `file` is a layout directory or an archive: which of them is seen when it is opened. */
  kind: "file";
  /** Absolute. */
  path: string;
  /** Which image of several. */
  tag?: string;
}

/** An archive on standard input. */
export interface InputReference {
  kind: "input";
}

/** One that was built here. */
export interface BuiltReference {
  kind: "built";
  /** Of its manifest: `sha256:…` */
  digest: string;
}

export type ImageReference = RegistryReference | FileReference | InputReference | BuiltReference;

/** Of a name in all; of one that is a path, when it is absolute. */
const maxNameLength = 256;
const maxPathNameLength = 1024;

const host = /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?$/;
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const digestPattern = /^sha256:[0-9a-f]{64}$/;

/** Whether `name` can be nothing but an image's: it has a path, a registry or a digest in it. */
export function isImageName(name: string): boolean {
  return isPath(name) || /[/@]/.test(name);
}

/** Of a layout directory or an archive on this host, and not a registry's image. */
export function isPath(name: string): boolean {
  return name.startsWith("/") || /^\.{1,2}(?:\/|$)/.test(name);
}

/** Throws INVALID_ARGUMENT for what is none, with what is wrong about it. */
export async function parseImageName(name: string): Promise<ImageReference> {
  const fail = (what: string) => new PyroError("INVALID_ARGUMENT", `"${harmlessLine(name, 200)}" names no image: ${what}.`, { hint: "An image is REGISTRY/NAME:TAG (docker.io/library/debian:12-slim), the path of an OCI layout directory or of a saved archive (./image, /tmp/image.tar)." });
  if (name === "-") return { kind: "input" };
  if (name.startsWith("built:") && digestPattern.test(name.slice("built:".length))) return { kind: "built", digest: name.slice("built:".length) };
  if (isPath(name)) {
    const reference = await parsePath(name, fail);
    // It is kept as it is printed, and read again.
    const printed = printReference(reference);
    if (printed.length > maxPathNameLength) throw fail(`its path has more than ${maxPathNameLength} characters`);
    if (!isHarmlessLine(printed)) throw fail("its path has characters in it that can't be shown");
    return reference;
  }
  if (name.length > maxNameLength) throw fail(`it has more than ${maxNameLength} characters`);
  return parseReference(name, fail);
}

/** Colons may be part of the path as well as of the image's name (`saved.tar:team/ci:1`): the longest path that is there is it. */
async function parsePath(name: string, fail: (what: string) => PyroError): Promise<FileReference> {
  const last = name.lastIndexOf(":");
  let colon = name.length;
  while (colon !== -1 && !(await isThere(name.slice(0, colon)))) colon = name.lastIndexOf(":", colon - 1);
  if (colon === -1) colon = last > name.lastIndexOf("/") ? last : name.length;
  if (colon === name.length) return { kind: "file", path: resolve(name) };
  const tag = name.slice(colon + 1);
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.:/+-]{0,127}$/.test(tag)) throw fail("what stands behind the path and a colon is no image's name");
  return { kind: "file", path: resolve(name.slice(0, colon)), tag };
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false);
}

/** As the distribution project's `reference` has it; without a registry it is Docker Hub's, as everywhere. */
function parseReference(name: string, fail: (what: string) => PyroError): RegistryReference {
  const at = name.indexOf("@");
  const digest = at === -1 ? undefined : name.slice(at + 1);
  if (digest !== undefined && !digestPattern.test(digest)) throw fail("a digest is sha256: and 64 hexadecimal digits");
  let rest = at === -1 ? name : name.slice(0, at);
  const colon = rest.lastIndexOf(":");
  let tag: string | undefined;
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    if (!tagPattern.test(tag)) throw fail("a tag is letters, digits, and _ . - between them, at most 128");
    rest = rest.slice(0, colon);
  }
  const slash = rest.indexOf("/");
  const first = slash === -1 ? "" : rest.slice(0, slash);
  const hasHost = /[.:[]/.test(first) || first === "localhost";
  const where = hasHost ? first.toLowerCase() : "docker.io";
  const path = hasHost ? rest.slice(slash + 1) : rest;
  if (!host.test(where) || !URL.canParse(`https://${where}/`)) throw fail(`"${harmlessLine(where, 100)}" is no registry's address`); // the pattern is its shape, the rest is which ports and addresses there are
  const repository = where === "docker.io" && !path.includes("/") ? `library/${path}` : path;
  if (!repository.split("/").every((each) => component.test(each))) throw fail("a name is small letters and digits, with . _ - between them, and slashes");
  return { kind: "registry", host: where, repository, ...(digest === undefined ? { tag: tag ?? "latest" } : { digest, ...(tag !== undefined && { tag }) }) };
}

/** The name in full, which is what it is kept under: two ways of writing it are one name. */
export function printReference(reference: ImageReference): string {
  if (reference.kind === "input") return "-";
  if (reference.kind === "built") return `built:${reference.digest}`;
  if (reference.kind === "file") return `${reference.path}${reference.tag === undefined ? "" : `:${reference.tag}`}`;
  const { host: where, repository, tag, digest } = reference;
  return `${where}/${repository}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** A name of the user's own, for an image to be known by. Throws INVALID_ARGUMENT. */
export function checkOwnName(name: string): void {
  if (isAbsolute(name) || !/^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$/.test(name)) {
    throw new PyroError("INVALID_ARGUMENT", `"${harmlessLine(name, 200)}" can't be an environment's name: letters, digits and . _ : / @ + - between them, at most 128.`);
  }
}
