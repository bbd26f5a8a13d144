/** What is done with environments that also concerns the VMs frozen from them. */
import { PyroError, toPyroError } from "../base/error.js";
import { log } from "../base/log.js";
import { settings } from "../base/settings.js";
import { pruneEnvironments as pruneStore, removeEnvironment as removeFromStore, pullEnvironment as pull, type Environment, type PruneOptions, type PruneResult, type PullOptions } from "../environments/index.js";
import { checkLimit, limits } from "./limits.js";
import { withPrepared, type Phase } from "./start.js";
import { pruneTemplates, warmTemplate, type PruneTemplatesOptions } from "./template.js";
import { environmentsOfVms } from "./vms/needed.js";

export interface PullRequestOptions extends PullOptions {
  /** What happens after the environment is there: a template of the default size is made of it. */
  onPhase?: (phase: Phase) => void;
}

/** Makes an environment ready for use, the template for VMs of the default size included. Throws what pulling throws; a template that can't be made is no failure. */
export async function pullEnvironment(name: string, options: PullRequestOptions = {}): Promise<Environment> {
  const { onPhase, ...pullOptions } = options;
  const environment = await pull(name, pullOptions);
  try {
    await warmEnvironment({ environment: name }, { ...(options.signal && { signal: options.signal }), ...(onPhase && { onPhase }) });
  } catch (error) {
    // The environment is there; a VM of it will try again, and say why it can't if it matters.
    if (options.signal?.aborted) throw error;
    log("no template after the pull", { environment: name, why: toPyroError(error).message });
  }
  return environment;
}

export interface WarmRequest {
  environment: string;
  /** 1 to 32; default 1. */
  vcpuCount?: number;
  /** 128 to 65,536; default 1024. */
  memMib?: number;
}

export interface WarmResult {
  environment: string;
  vcpuCount: number;
  memMib: number;
  accelerator: "kvm" | "tcg";
  /** False if there was a good one. */
  made: boolean;
}

/**
 * Makes the template that VMs of this environment and size are forked from, unless there is one. Pulls the environment if it is
 * not installed. Throws NOT_FOUND, INVALID_ARGUMENT, BOOT_FAILED, DISK_FULL, UNSUPPORTED where nothing can be forked, CANCELLED.
 */
export async function warmEnvironment(request: WarmRequest, options: { signal?: AbortSignal; onPhase?: (phase: Phase) => void } = {}): Promise<WarmResult> {
  const vcpuCount = checkLimit("vcpuCount", request.vcpuCount);
  const memMib = checkLimit("memMib", request.memMib);
  const sized = { environment: request.environment, vcpuCount, memMib };
  const { warm, accelerator } = await withPrepared({ ...sized, ttlSeconds: limits.ttlSeconds.default }, options, async ({ environment, spec, choice, hold }) => ({
    warm: await warmTemplate({ environment, spec, accelerator: choice.accelerator, hold }, options),
    accelerator: choice.accelerator,
  }));
  if (warm === undefined) {
    throw new PyroError("UNSUPPORTED", "VMs are not forked here, so there is nothing to make ahead.", settings.templateMaxAgeSeconds() === 0 ? { hint: "Unset PYRO_TEMPLATE_MAX_AGE_SECONDS." } : {});
  }
  return { ...sized, accelerator, made: warm.made };
}

/** Removes environments that are no longer used and templates that nothing can be forked from any more; never what a VM uses, or will when it is started again. */
export async function pruneEnvironments(options: Omit<PruneOptions, "neededBy"> = {}): Promise<PruneResult> {
  const environments = await pruneStore({ ...options, neededBy: environmentsOfVms });
  const templates = await pruneTemplates(forTemplates(options));
  return { removed: [...environments.removed, ...templates.removed], reclaimedBytes: environments.reclaimedBytes + templates.reclaimedBytes };
}

/** Removes one environment by its name, and the templates that were frozen from it. Throws NOT_FOUND, INVALID_STATE while there is a VM of it. */
export async function removeEnvironment(name: string, options: Omit<PruneOptions, "olderThanSeconds" | "maxMib" | "neededBy"> = {}): Promise<PruneResult> {
  const environments = await removeFromStore(name, { ...options, neededBy: environmentsOfVms });
  const templates = await pruneTemplates(forTemplates(options));
  return { removed: [...environments.removed, ...templates.removed], reclaimedBytes: environments.reclaimedBytes + templates.reclaimedBytes };
}

function forTemplates({ signal, onWait }: PruneOptions): PruneTemplatesOptions {
  return { ...(signal && { signal }), ...(onWait && { onWait: () => onWait("another process is making a template") }) };
}
