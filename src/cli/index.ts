export { runCommandLine } from "./program.js";
export { flushOutput } from "./render.js";
