/** How far a monitor can be confined on this host (`keeper/confine.h`), found out by confining a process. */
import { readFile } from "node:fs/promises";
import { runChild } from "../base/child.js";
import { PyroError } from "../base/error.js";
import { nativeProgram } from "../base/paths.js";
import { fileKey, hostBootId, readFact, writeFact } from "./host-facts.js";

export interface ConfinementPiece {
  name: "privileges" | "user" | "namespaces" | "files" | "calls";
  had: boolean;
  /** By what it is had, where there are several ways. */
  how?: string;
  /** Where it is not had. */
  why?: string;
}

/** Every piece, had or not. */
export async function inspectConfinement(): Promise<ConfinementPiece[]> {
  const { code, stdout, stderr } = await runChild(nativeProgram("pyro-keeper"), ["confinement"], { timeoutMs: 10_000 });
  const pieces = stdout.toString("utf8").trim().split("\n").flatMap((line): ConfinementPiece[] => {
    const [, name, how, why] = /^(privileges|user|namespaces|files|calls) (?:yes(?:: (.*))?|no: (.*))$/.exec(line) ?? [];
    return name === undefined ? [] : [{ name: name as ConfinementPiece["name"], had: why === undefined, ...(how !== undefined && { how }), ...(why !== undefined && { why }) }];
  });
  if (code !== 0 || pieces.length !== 5) throw new PyroError("INTERNAL", `The keeper can't confine a process here (status ${code}): ${stderr.slice(0, 500)}`);
  return pieces;
}

/**
 * Whether a fork's monitor can be kept from making holes into its template's memory, which takes the filter of its calls. Asked once per boot of the host, keeper and number of
 * filters that we have ourselves: a container has some, and may have this cache.
 */
export async function canSealMemory(): Promise<boolean> {
  const [boot, keeper, status] = await Promise.all([hostBootId(), fileKey(nativeProgram("pyro-keeper")), readFile("/proc/self/status", "latin1")]);
  const key = [boot, keeper, ...status.split("\n").filter((line) => line.startsWith("Seccomp"))].join(" ").replaceAll("\t", " ");
  const kept = await readFact("confinement", key);
  if (typeof kept === "boolean") return kept;
  const can = (await inspectConfinement()).some(({ name, had }) => name === "calls" && had);
  await writeFact("confinement", key, can);
  return can;
}
