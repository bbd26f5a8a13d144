/** The arguments of a method, by name: checked for what they are, and made into core's request. Ranges are core's to check. */
import { PyroError } from "../../base/error.js";
import { harmlessLine } from "../../base/harmless.js";
import { nearest } from "../../base/nearest.js";
import { limits } from "../../core/index.js";

/** What an argument may be. */
interface Kind {
  /** Finishes the sentence "it is …". */
  readonly is: string;
  allows(value: unknown): boolean;
}

/** Half of a surrogate pair is no character: it would reach the guest as another name than the one that was given. */
const isText = (value: unknown): value is string => typeof value === "string" && !/\p{Surrogate}/u.test(value);

const text: Kind = { is: "a string of Unicode characters", allows: isText };
const flag: Kind = { is: "true or false", allows: (value) => typeof value === "boolean" };
const command: Kind = { is: "a string for the guest's login shell, or an array of strings that is executed as it is", allows: (value) => isText(value) || (Array.isArray(value) && value.every(isText)) };
const variables: Kind = { is: "an object whose names and values are strings", allows: (value) => isObject(value) && Object.entries(value).flat().every(isText) };
const texts: Kind = { is: "an array of strings", allows: (value) => Array.isArray(value) && value.every(isText) };
const numbers = Object.fromEntries(Object.entries(limits).map(([name, { min, max }]) => [snakeCase(name), { is: `a whole number from ${min} to ${max}`, allows: (value: unknown) => typeof value === "number" }]));

/** Every argument there is, in the spelling of the contract. One name means the same for every method. */
const kinds: Readonly<Record<string, Kind>> = {
  ...numbers,
  environment: text,
  vm_id: text,
  command,
  network: flag,
  allow_hosts: texts,
  deny_hosts: texts,
  allow_nets: texts,
  publish: texts,
  secrets: texts,
  audit_file: text,
  last: { is: "a whole number", allows: (value) => Number.isSafeInteger(value) && (value as number) >= 0 },
  allow_host_compat: flag,
  force: flag,
  env: variables,
  cwd: text,
  user: text,
};

/** `memMib` as `mem_mib`. */
type Snake<Name extends string> = Name extends `${infer First}${infer Rest}` ? `${First extends Lowercase<First> ? First : `_${Lowercase<First>}`}${Snake<Rest>}` : "";

/** The names of a request's fields as a method has them; those that have to be there first. */
export interface ArgumentNames<Request> {
  readonly required: readonly Snake<keyof Request & string>[];
  readonly optional: readonly Snake<keyof Request & string>[];
}

/** What was given as core's request. Throws INVALID_ARGUMENT that names the argument, what was given and what is allowed. */
export function parseArguments<Request>(method: string, names: ArgumentNames<Request>, given: unknown): Request {
  if (!isObject(given)) throw new PyroError("INVALID_ARGUMENT", `params is ${show(given)}; it is an object with arguments by their names.`, { hint: allowed(method, names) });
  const known: readonly string[] = [...names.required, ...names.optional];
  for (const [name, value] of Object.entries(given)) {
    if (!known.includes(name)) {
      const near = nearest(name, known);
      throw new PyroError("INVALID_ARGUMENT", `${method} has no argument ${show(name)}.`, { hint: `${near.length === 0 ? "" : `Did you mean ${near.join(" or ")}? `}${allowed(method, names)}` });
    }
    const { is, allows } = kinds[name]!;
    if (!allows(value)) throw new PyroError("INVALID_ARGUMENT", `${name} is ${show(value)}; it is ${is}.`, { hint: `Give such a ${name}${(names.required as readonly string[]).includes(name) ? "" : ", or leave it out"}.` });
  }
  for (const name of names.required) {
    if (!Object.hasOwn(given, name)) throw new PyroError("INVALID_ARGUMENT", `${name} is missing; it is ${kinds[name]!.is}.`, { hint: allowed(method, names) });
  }
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [camelCase(name), value])) as Request;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value that came over the pipe, for the middle of a sentence. */
export function show(value: unknown): string {
  return harmlessLine(JSON.stringify(typeof value === "string" ? value.slice(0, 100) : value) ?? "missing", 100);
}

function allowed(method: string, { required, optional }: ArgumentNames<never>): string {
  const parts = [...(required.length > 0 ? [`needs ${required.join(", ")}`] : []), ...(optional.length > 0 ? [`takes ${optional.join(", ")}`] : [])];
  return parts.length === 0 ? `${method} takes no arguments.` : `${method} ${parts.join(" and ")}.`;
}

/** The one way from the contract's spelling to core's; back again it is `toJson`. */
function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
