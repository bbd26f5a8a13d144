export { runCommandLine } from "./program.js";
export type { Faces } from "./faces.js";
