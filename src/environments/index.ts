/** Environments: a name becomes a read-only disk, a kernel and an initramfs, once. */
export type { ExportResult } from "./export.js";
export type { HeldLayer } from "./build.js";
export { isInCatalog } from "./catalog.js";
export type { Environment, EnvironmentDetails, EnvironmentImage } from "./environment.js";
export { holdEnvironment, type HoldOptions } from "./hold.js";
export { isPath as isImagePath } from "./images/reference.js";
export { environmentNames, listEnvironments, inspectEnvironment, type LookOptions } from "./inspect.js";
export type { ImageConfig } from "./images/documents.js";
export { configOf, openEnvironment, type OpenEnvironment, type OpenOptions } from "./open.js";
export type { PullOptions } from "./pull.js";
export type { LayerProgress, PullPhase, PullProgress } from "./progress.js";
export type { PruneOptions, PruneResult } from "./prune.js";
export { scratchDisk } from "./scratch.js";
export { diskUsage, makeTemporary, removeAtLast, type TemporaryDirectory } from "./temporary.js";

// Making and removing environments is most of the code in here and is rarely done: loaded when it is, so that every `run` starts sooner.
export const pullEnvironment: typeof import("./pull.js").pullEnvironment = async (...args) => (await import("./pull.js")).pullEnvironment(...args);
export const pruneEnvironments: typeof import("./prune.js").pruneEnvironments = async (...args) => (await import("./prune.js")).pruneEnvironments(...args);
export const removeEnvironment: typeof import("./prune.js").removeEnvironment = async (...args) => (await import("./prune.js")).removeEnvironment(...args);
export const exportEnvironment: typeof import("./export.js").exportEnvironment = async (...args) => (await import("./export.js")).exportEnvironment(...args);
export const checkBuildName: typeof import("./build.js").checkBuildName = async (...args) => (await import("./build.js")).checkBuildName(...args);
export const checkBuildBase: typeof import("./build.js").checkBuildBase = async (...args) => (await import("./build.js")).checkBuildBase(...args);
export const holdLayer: typeof import("./build.js").holdLayer = async (...args) => (await import("./build.js")).holdLayer(...args);
export const describeBuilder: typeof import("./sources/debian.js").describeBuilder = async () => (await import("./sources/debian.js")).describeBuilder();
