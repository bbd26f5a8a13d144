/** The command that starts this very pyro in the hands of a program that knows little of the user's shell. */
import { realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve, sep } from "node:path";
import { PyroError } from "../../base/error.js";
import { settings } from "../../base/settings.js";
import type { Scope, ServerCommand } from "./clients.js";

const verb = ["mcp", "serve"] as const;

/**
 * For the user's own configuration: Node and the script, both by absolute path. A client that is started from a desktop has no PATH of a shell, so neither `pyro` nor the
 * `node` in its first line would be found where a version manager put them. `script` is the name it was started by, links not followed: package
 * managers keep that over an update, and move what it leads to. For a project, whose file others share: the name, as their PATH has it.
 * Throws UNSUPPORTED where the script is gone before long.
 */
export function serverCommand(scope: Scope, script: string): ServerCommand {
  if (scope === "project") return { command: "pyro", args: verb };
  const path = resolve(script);
  const passing = [path, realpathSync(path)].find((each) => each.includes(`${sep}_npx${sep}`) || each.startsWith(tmpdir() + sep));
  if (passing !== undefined) {
    throw new PyroError("UNSUPPORTED", `This pyro is at ${passing}, from where it will be cleared away.`, { hint: "npm install --global pyro-mcp, then the same command again" });
  }
  return { command: lastingNode(process.execPath), args: [path, ...verb] };
}

/** The name of `node` that survives its next update: a link in PATH that leads to it, as distributions and Homebrew have it, unless it is one shell's own. */
function lastingNode(node: string): string {
  const passing = ["/run/", `${tmpdir()}/`];
  const names = settings.path().split(":").filter((each) => each.startsWith("/") && !passing.some((start) => `${each}/`.startsWith(start)) && !each.includes("multishell"));
  return names.map((each) => join(each, "node")).find((each) => leadsTo(each) === node) ?? node;
}

function leadsTo(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
