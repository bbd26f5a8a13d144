/** How far a monitor can be confined on this host (`keeper/confine.h`), found out by confining a process. */
import { runChild } from "../base/child.js";
import { PyroError } from "../base/error.js";
import { nativeProgram } from "../base/paths.js";

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
