/** Environments: a name becomes a read-only disk, a kernel and an initramfs, once. */
export type { Environment, EnvironmentDetails } from "./environment.js";
export { listEnvironments, inspectEnvironment, type LookOptions } from "./inspect.js";
export { openEnvironment, type OpenEnvironment, type OpenOptions } from "./open.js";
export { pullEnvironment, type PullOptions } from "./pull.js";
export type { PullPhase, PullProgress } from "./progress.js";
export { pruneEnvironments, type PruneOptions, type PruneResult } from "./prune.js";
export { scratchDisk } from "./scratch.js";
export { checkBuilder } from "./sources/debian.js";
