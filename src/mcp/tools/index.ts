/** Every tool, in the order in which clients are shown them. A new tool is a line here and a file beside this one. */
import type { Tool } from "../tool.js";
import { vmCall } from "./vm-call.js";
import { vmCreate } from "./vm-create.js";
import { vmDelete } from "./vm-delete.js";
import { vmExec } from "./vm-exec.js";
import { vmListEnvironments } from "./vm-list-environments.js";
import { vmNetworkInfo } from "./vm-network-info.js";
import { vmOpen } from "./vm-open.js";
import { vmReapExpired } from "./vm-reap-expired.js";
import { vmRun } from "./vm-run.js";
import { vmStart } from "./vm-start.js";
import { vmStatus } from "./vm-status.js";
import { vmStop } from "./vm-stop.js";

/** `run`: one-off commands alone. `contract`: what semantic versioning binds. `all`, the default: also many commands on one VM, which most tasks of an agent are. */
export const toolProfiles = {
  run: [vmRun, vmListEnvironments],
  contract: [vmRun, vmListEnvironments, vmCreate, vmStart, vmExec, vmStop, vmDelete, vmStatus, vmNetworkInfo, vmReapExpired],
  all: [vmRun, vmListEnvironments, vmCreate, vmStart, vmExec, vmStop, vmDelete, vmStatus, vmNetworkInfo, vmReapExpired, vmOpen, vmCall],
} as const satisfies Record<string, readonly Tool[]>;

export type ToolProfile = keyof typeof toolProfiles;
