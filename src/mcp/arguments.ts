/** The arguments that several tools take, and the one way in for them. */
import * as z from "zod";
import { PyroError } from "../base/error.js";
import { harmlessLine } from "../base/harmless.js";
import { nearest } from "../base/nearest.js";
import { isImagePath, limits, parseHostPattern } from "../core/index.js";

/** A whole number within core's limits. The default is core's as well: what is left out stays out, and is only told. */
function limit(name: "vcpuCount" | "memMib" | "timeoutSeconds" | "ttlSeconds", description: string) {
  const { min, max, default: fallback } = limits[name];
  const error = is(`a whole number from ${min} to ${max}`);
  return z.int({ error }).min(min, { error }).max(max, { error }).optional().meta({ description: `${description} ${min} to ${max}, default ${fallback}.`, default: fallback });
}

function flag(description: string) {
  return z.boolean({ error: is("true or false") }).optional().meta({ description: `${description} Default false.`, default: false });
}

function hosts(description: string) {
  const error = is("an array of names, as example.org, *.example.org or example.org:443, and no addresses");
  const isName = (text: string) => parseHostPattern(text)?.address === undefined && parseHostPattern(text) !== undefined;
  return z.array(z.string({ error }).refine(isName, { error }), { error }).max(64, { error: is("an array of at most 64 names") }).optional().describe(description);
}

const commandError = is('a line for the guest\'s shell, as "git --version", or an array of words that is executed without a shell, as ["git", "--version"]');

export const argument = {
  // A path would let a client find out what files there are, and have images read that nobody offered it.
  environment: z.string({ error: is("the name of an environment, as debian:12") }).refine((name) => !isImagePath(name), { error: is("a name and no path of the host; what is there gets a name by `pyro env pull NAME --source PATH`") }).describe("What the VM is made of: debian:12 (Git and what agents reach for first), debian:12-base (minimal), debian:12-build (Git and a C toolchain), another that vm_list_environments names, or an OCI image (docker.io/library/python:3.12-slim). Pulled once if it is not installed, which takes a minute."),
  command: z
    .union([z.string(), z.array(z.string())], { error: commandError })
    .describe('A string is a line for the guest\'s login shell ("make && make test"); an array of words is executed as it is, without a shell (["git", "log", "--format=%s"]).'),
  vcpuCount: limit("vcpuCount", "Virtual processors."),
  memMib: limit("memMib", "Memory, MiB."),
  timeoutSeconds: limit("timeoutSeconds", "Time for the command, seconds; then it is killed with all it started, and the result says timed_out."),
  ttlSeconds: limit("ttlSeconds", "Time for the VM to live, seconds; then it ends, whatever happens."),
  network: flag("Lets the guest reach the public internet; never this host or private networks."),
  // No address and no network, which would open what is private: that is for whoever runs the server, not for a model.
  allowHosts: hosts("Lets the guest reach these hosts and nothing else: example.org, *.example.org:443. Give it instead of network: true where the hosts are known."),
  denyHosts: hosts("Hosts that the guest may not reach, whatever else is allowed."),
  allowHostCompat: flag("Runs the command on the host, NOT ISOLATED, if this host can't run a VM. Set it only if the user has asked for that."),
  vmId: z.string({ error: is("the vm_id that vm_create or vm_open gave, as vm-k3v9x2mq") }).describe("The vm_id that vm_create or vm_open gave."),
};

/** Checks what a client sent. Throws INVALID_ARGUMENT that says of each wrong argument which it is, what was given and what is allowed. */
export function readArguments<Schema extends z.ZodObject>(tool: string, schema: Schema, given: unknown): z.output<Schema> {
  const { success, data, error } = schema.safeParse(given ?? {});
  if (success) return data;
  const known = Object.keys(schema.shape);
  const complaints = error.issues.slice(0, 8).map((issue) => complaint(issue, known));
  throw new PyroError("INVALID_ARGUMENT", [...new Set(complaints)].join(" "), { hint: `${tool} takes ${known.join(", ")}.` });
}

function complaint(issue: z.core.$ZodIssue, known: readonly string[]): string {
  if (issue.code === "unrecognized_keys") return unknownNames(issue.keys, issue.path, known);
  if (issue.code === "invalid_key") return `${issue.path.slice(0, -1).map(String).join(".")} has ${show(issue.path.at(-1))}; each name in it ${issue.issues[0]!.message}`;
  return `${issue.path.map(String).join(".") || "The arguments"} ${issue.message}`;
}

/** What finishes the sentence that begins with an argument's name. */
export function is(allowed: string): (issue: { input?: unknown }) => string {
  return ({ input }) => (input === undefined ? `is missing; it is ${allowed}.` : `is ${show(input)}; it is ${allowed}.`);
}

function show(value: unknown): string {
  return harmlessLine(JSON.stringify(value) ?? String(value), 80);
}

function unknownNames(names: readonly string[], path: readonly PropertyKey[], known: readonly string[]): string {
  const where = path.length === 0 ? "" : ` in ${path.map(String).join(".")}`;
  const near = path.length === 0 ? names.flatMap((name) => nearest(name, known)) : [];
  return `There is no argument ${names.slice(0, 8).map(show).join(" or ")}${where}.${near.length === 0 ? "" : ` Did you mean ${[...new Set(near)].join(" or ")}?`}`;
}
